"""The state of a speculative run: everything the loop carries."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from sdvar_jax.config import VARConfig
from sdvar_jax.decoding.base import ClassModulations
from sdvar_jax.decoding.f_hat import NO_TOKEN, initial_f_hats
from sdvar_jax.decoding.request import Request
from sdvar_jax.models import KVCache, Modulations, Quantizer

# Who made a scale, as recorded in ``Counters.makers``.
MAKER_NONE, MAKER_ACCEPTED, MAKER_CORRECTED, MAKER_BONUS, MAKER_UNCHECKED, MAKER_TARGET = range(6)
MAKER_NAMES = (
    "nobody",
    "draft, accepted",
    "target, corrected",
    "target, bonus",
    "draft, unchecked",
    "target",
)


class Counters(struct.PyTreeNode):
    """Counts kept while decoding; all int32.

    Attributes:
      target_calls: forwards of the target, scalar.
      draft_calls: forwards of the draft, scalar.
      target_tokens: positions the target computed for one sample (without guidance doubling),
        scalar.
      draft_tokens: likewise for the draft.
      drafts: checks with at least one drafted scale, scalar.
      window_starts: first scale of each target call [max_calls], -1 where there was none.
      window_stops: likewise, the scale behind the last.
      drafted: drafts of each scale that were checked, summed over the batch [num_scales].
      accepted: those that passed and were kept [num_scales].
      rejected: those at which a window ended [num_scales]; drafts behind them were not judged.
      agreed_tokens: drafted tokens equal to the target's, of all drafts checked [num_scales].
      makers: who made each sample's scale, ``MAKER_*`` [batch, num_scales].
    """

    target_calls: jax.Array
    draft_calls: jax.Array
    target_tokens: jax.Array
    draft_tokens: jax.Array
    drafts: jax.Array
    window_starts: jax.Array
    window_stops: jax.Array
    drafted: jax.Array
    accepted: jax.Array
    rejected: jax.Array
    agreed_tokens: jax.Array
    makers: jax.Array

    @classmethod
    def make(cls, batch: int, num_scales: int, max_calls: int) -> Counters:
        """All zero."""
        # One array a field: donated buffers must not be shared.
        return cls(
            target_calls=jnp.zeros((), jnp.int32),
            draft_calls=jnp.zeros((), jnp.int32),
            target_tokens=jnp.zeros((), jnp.int32),
            draft_tokens=jnp.zeros((), jnp.int32),
            drafts=jnp.zeros((), jnp.int32),
            window_starts=jnp.full((max_calls,), -1, jnp.int32),
            window_stops=jnp.full((max_calls,), -1, jnp.int32),
            drafted=jnp.zeros((num_scales,), jnp.int32),
            accepted=jnp.zeros((num_scales,), jnp.int32),
            rejected=jnp.zeros((num_scales,), jnp.int32),
            agreed_tokens=jnp.zeros((num_scales,), jnp.int32),
            makers=jnp.full((batch, num_scales), MAKER_NONE, jnp.int32),
        )


class Trace(struct.PyTreeNode):
    """What happened at each target call; kept in debugging mode alone.

    Attributes:
      proposed_tokens: tokens before the check, int32 [max_calls, batch, total_length].
      committed_tokens: tokens after it, likewise; valid up to ``progress``.
      progress: committed scales after it, int32 [max_calls, batch].
      f_hat: f_hat of the committed scales, float32 [max_calls, batch, latent, latent, channels].
    """

    proposed_tokens: jax.Array
    committed_tokens: jax.Array
    progress: jax.Array
    f_hat: jax.Array


class DecodingState(struct.PyTreeNode):
    """The carry of the loop.

    Attributes:
      tokens: committed tokens, then proposals, int32 [batch, total_length].
      progress: committed scales of each sample, int32 [batch]; a window starts at their minimum.
      proposed: scales of each sample that hold committed or proposed tokens, int32 [batch].
      f_hats: f_hat before each scale, see ``decoding.f_hat``.
      draft_length: scales whose keys and values the draft's cache holds, int32 scalar.
      target_cache: the target's; valid up to the committed scales. None before the target is asked.
      draft_cache: the draft's, or None without a draft.
      draft_logits: the draft's guided logits [batch, total_length, vocab] where the acceptance
        rule needs them, else None.
      target_logits: the target's guided logits of the first scales [batch, their positions, vocab],
        where a draft is judged by them later, else None.
      counters: statistics.
      trace: debugging mode alone.
    """

    tokens: jax.Array
    progress: jax.Array
    proposed: jax.Array
    f_hats: jax.Array
    draft_length: jax.Array
    target_cache: KVCache | None
    draft_cache: KVCache | None
    draft_logits: jax.Array | None
    target_logits: jax.Array | None
    counters: Counters
    trace: Trace | None

    @property
    def committed(self) -> jax.Array:
        """Scales committed for every sample, int32 scalar."""
        return jnp.min(self.progress)

    @property
    def at_stake(self) -> jax.Array:
        """Samples that have not committed each scale yet, int32 [num_scales]."""
        scales = jnp.arange(self.counters.makers.shape[1])
        return jnp.sum(self.progress[:, None] <= scales[None], axis=0, dtype=jnp.int32)


class Proposals(struct.PyTreeNode):
    """What the draft made for the first window, before the target is asked.

    Attributes:
      state: without the target's cache.
      modulations: the draft's class modulations.
      noise: the run's, see ``Request``.
    """

    state: DecodingState
    modulations: Modulations
    noise: jax.Array


class Kept(struct.PyTreeNode):
    """What a run goes on with behind the first window, besides its state.

    Attributes:
      modulations: the class modulations of both models.
      noise: the run's, see ``Request``.
    """

    modulations: ClassModulations
    noise: jax.Array


def initial_state(
    config: VARConfig,
    quantizer: Quantizer,
    request: Request,
    *,
    target_cache: KVCache | None = None,
    draft_cache: KVCache | None = None,
    keep_draft_logits: bool = False,
    kept_scales: int = 0,
    trace: bool = False,
) -> DecodingState:
    """The state before the first scale.

    Args:
      config: of target or draft, whose scales and vocabulary are the same.
      quantizer: the shared quantizer.
      request: the run's arrays.
      target_cache: the target's, empty; None where it is not asked yet.
      draft_cache: the draft's, empty; None without a draft.
      keep_draft_logits: make room for the draft's logits.
      kept_scales: make room for the target's logits of the scales before this one.
      trace: make room for a trace.
    """
    batch, pyramid, vocab = request.batch, config.pyramid, config.vocab_size
    length, max_calls = pyramid.total_length, pyramid.num_scales  # Each call commits a scale.
    f_hats = initial_f_hats(quantizer, batch)
    return DecodingState(
        tokens=jnp.full((batch, length), NO_TOKEN, jnp.int32),
        progress=jnp.zeros((batch,), jnp.int32),
        proposed=jnp.zeros((batch,), jnp.int32),
        f_hats=f_hats,
        draft_length=jnp.zeros((), jnp.int32),
        target_cache=target_cache,
        draft_cache=draft_cache,
        draft_logits=(
            jnp.zeros((batch, length, vocab), jnp.float32) if keep_draft_logits else None
        ),
        target_logits=(
            jnp.zeros((batch, pyramid.offsets[kept_scales], vocab), jnp.float32)
            if kept_scales
            else None
        ),
        counters=Counters.make(batch, pyramid.num_scales, max_calls),
        trace=(
            Trace(
                proposed_tokens=jnp.full((max_calls, batch, length), NO_TOKEN, jnp.int32),
                committed_tokens=jnp.full((max_calls, batch, length), NO_TOKEN, jnp.int32),
                progress=jnp.zeros((max_calls, batch), jnp.int32),
                f_hat=jnp.zeros((max_calls, *f_hats.shape[1:]), jnp.float32),
            )
            if trace
            else None
        ),
    )
