"""Commit and rollback: the one place that turns a verdict into the next state.

It owns f_hat, the tokens and both caches' lengths. Rolling back is lowering numbers: whatever
lies behind the committed scale in f_hat or a KV cache is never read before it is written anew.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from sdvar_jax.decoding.f_hat import NO_TOKEN, extend
from sdvar_jax.decoding.speculative.run import SpeculativeRun
from sdvar_jax.decoding.speculative.state import (
    MAKER_ACCEPTED,
    MAKER_BONUS,
    MAKER_CORRECTED,
    MAKER_TARGET,
    MAKER_UNCHECKED,
    Counters,
    DecodingState,
    Trace,
)
from sdvar_jax.decoding.speculative.windows import CheckWindow
from sdvar_jax.decoding.window import split_by_scale


class Verdict(struct.PyTreeNode):
    """What the target says of a window.

    Attributes:
      passed: whether each drafted scale passes by itself, bool [batch, drafted scales].
      tokens: the target's tokens at every position of the window, int32 [batch, length].
    """

    passed: jax.Array
    tokens: jax.Array


def accepted_scales(state: DecodingState, checked: CheckWindow, passed: jax.Array) -> jax.Array:
    """The first scale of each sample that is not accepted, int32 [batch].

    A scale is accepted if it and all drafted scales before it pass. Scales a sample committed
    earlier stay committed.
    """
    scales = jnp.arange(checked.window.start, checked.drafted_stop)
    passed = passed | (scales[None] < state.progress[:, None])
    run_length = jnp.sum(jnp.cumprod(passed.astype(jnp.int32), axis=1), axis=1)
    return checked.window.start + run_length


def commit(
    run: SpeculativeRun, state: DecodingState, checked: CheckWindow, verdict: Verdict
) -> DecodingState:
    """Commits what passed and the target's tokens at the first scale that did not.

    Args:
      run: what stays the same.
      state: before the check, but with the target's cache written.
      checked: the window.
      verdict: what the target says of it.

    Returns:
      The state after it; every sample at the window's start moved on by a scale or more.
    """
    window, pyramid = checked.window, run.pyramid
    batch = state.tokens.shape[0]
    chex.assert_shape(verdict.tokens, (batch, len(window.positions(pyramid))))
    chex.assert_shape(verdict.passed, (batch, checked.drafted))

    boundary = accepted_scales(state, checked, verdict.passed)  # [batch]
    reached = jnp.minimum(boundary + 1, window.stop)
    if run.refine is not None:
        # The last call of a refinement takes the whole window, accepted or corrected.
        last = state.counters.target_calls + 1 >= run.refine
        reached = jnp.where(last, window.stop, reached)
    progress = jnp.maximum(state.progress, reached)
    if not run.per_sample:
        progress = jnp.broadcast_to(jnp.min(progress), progress.shape)

    tokens, f_hats, makers = state.tokens, state.f_hats, state.counters.makers
    first_changed = jnp.asarray(checked.drafted_stop, jnp.int32)
    agreed = []
    by_scale = zip(window.scales, split_by_scale(verdict.tokens, pyramid, window), strict=True)
    for scale, of_target in reversed(list(by_scale)):
        here = pyramid.window(scale, scale + 1)
        proposed = state.tokens[:, here]
        was_final = (scale < state.progress)[:, None]  # [batch, 1]
        keeps_draft = was_final
        if run.commit_draft:
            keeps_draft = keeps_draft | (scale < boundary)[:, None]
        new = jnp.where(keeps_draft, proposed, of_target)
        if not run.recycle:
            new = jnp.where((scale < progress)[:, None], new, NO_TOKEN)
        tokens = tokens.at[:, here].set(new)
        unchanged = jnp.all(new == proposed, axis=1)  # [batch]
        drafted = scale < checked.drafted_stop
        if drafted:
            first_changed = jnp.where(jnp.all(unchanged), first_changed, scale)
            # Without a draft model the first windows hold no proposals.
            instead = jnp.where(scale < state.proposed, MAKER_CORRECTED, MAKER_TARGET)
            maker = jnp.where(unchanged, MAKER_ACCEPTED, instead)
            agreed.append(jnp.sum(jnp.where(was_final, 0, proposed == of_target)))
        else:
            maker = jnp.full((batch,), MAKER_BONUS if checked.drafted else MAKER_TARGET)
        newly = (scale >= state.progress) & (scale < progress)
        makers = makers.at[:, scale].set(jnp.where(newly, maker, makers[:, scale]))
    for scale in window.scales:
        here = pyramid.window(scale, scale + 1)
        f_hats = extend(run.models.quantizer, f_hats, tokens[:, here], scale)

    counters = _count(
        run, state, checked, boundary, progress, jnp.stack(agreed[::-1]) if agreed else None
    )
    # The draft's keys and values of a scale depend on the tokens before it.
    draft_length = jnp.minimum(
        state.draft_length, jnp.minimum(first_changed + 1, jnp.min(progress))
    )
    after = state.replace(
        tokens=tokens,
        progress=progress,
        proposed=jnp.maximum(progress, window.stop) if run.recycle else progress,
        f_hats=f_hats,
        draft_length=draft_length.astype(jnp.int32),
        counters=counters.replace(makers=makers),
    )
    return after.replace(trace=_record(state, after))


def commit_unchecked(run: SpeculativeRun, state: DecodingState) -> DecodingState:
    """Takes the draft's scales behind the last checked one as they are."""
    limit, scales = run.plan.limit, run.pyramid.num_scales
    makers = state.counters.makers.at[:, limit:].set(MAKER_UNCHECKED)
    return state.replace(
        progress=jnp.full_like(state.progress, scales),
        counters=state.counters.replace(makers=makers),
    )


def _count(
    run: SpeculativeRun,
    state: DecodingState,
    checked: CheckWindow,
    boundary: jax.Array,
    progress: jax.Array,
    agreed: jax.Array | None,
) -> Counters:
    """The statistics after a check."""
    counters, window = state.counters, checked.window
    call = counters.target_calls
    counters = counters.replace(
        target_calls=call + 1,
        target_tokens=counters.target_tokens + len(window.positions(run.pyramid)),
        window_starts=counters.window_starts.at[call].set(window.start),
        window_stops=counters.window_stops.at[call].set(window.stop),
    )
    if agreed is None:
        return counters
    drafted = slice(window.start, checked.drafted_stop)
    scales = jnp.arange(drafted.start, drafted.stop)[None]  # [1, drafted]
    fresh = (scales >= state.progress[:, None]) & (scales < state.proposed[:, None])
    accepted = fresh & (scales < boundary[:, None]) & (scales < progress[:, None])
    # What the slowest sample takes back was not rejected for good: it is judged again.
    rejected = fresh & (scales == boundary[:, None]) & (scales < progress[:, None])

    def add(total: jax.Array, here: jax.Array) -> jax.Array:
        return total.at[drafted].add(here.astype(jnp.int32))

    return counters.replace(
        drafts=counters.drafts + jnp.any(fresh).astype(jnp.int32),
        drafted=add(counters.drafted, jnp.sum(fresh, axis=0)),
        accepted=add(counters.accepted, jnp.sum(accepted, axis=0)),
        rejected=add(counters.rejected, jnp.sum(rejected, axis=0)),
        agreed_tokens=add(counters.agreed_tokens, agreed),
    )


def _record(before: DecodingState, after: DecodingState) -> Trace | None:
    """Appends a call to the trace, in debugging mode."""
    if before.trace is None:
        return None
    call = before.counters.target_calls
    # Each sample's f_hat after its own committed scales.
    f_hat = jnp.take_along_axis(after.f_hats, after.progress[None, :, None, None, None], axis=0)[0]
    return before.trace.replace(
        proposed_tokens=before.trace.proposed_tokens.at[call].set(before.tokens),
        committed_tokens=before.trace.committed_tokens.at[call].set(after.tokens),
        progress=before.trace.progress.at[call].set(after.progress),
        f_hat=before.trace.f_hat.at[call].set(f_hat),
    )
