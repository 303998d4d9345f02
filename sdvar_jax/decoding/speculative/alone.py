"""Adaptive windows that leave all scales to the target, with the draft on trial or without it.

Where a draft is known not to be worth its time, it is not asked. Where nothing is known of it, it
is judged in one forward behind the target's scales, so that later runs know what passes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from sdvar_jax.decoding.base import Decoded, DecoderInHalves, DecodingModels
from sdvar_jax.decoding.request import Request, TokenSampling, with_noise
from sdvar_jax.decoding.speculative.acceptance import AcceptanceRule
from sdvar_jax.decoding.speculative.checking import (
    check_window_once,
    judge,
    what_the_target_saw,
)
from sdvar_jax.decoding.speculative.run import Judging, SpeculativeRun
from sdvar_jax.decoding.speculative.state import Counters, DecodingState, initial_state
from sdvar_jax.decoding.speculative.windows import CheckWindow, plan_alone
from sdvar_jax.decoding.window import (
    Window,
    class_modulations,
    draw_tokens,
    forward_window,
    split_by_scale,
)
from sdvar_jax.models import VAR, Quantizer


def run_alone(
    models: DecodingModels,
    request: Request,
    sampling: TokenSampling,
    rule: AcceptanceRule,
    *,
    trace: bool,
    kept_scales: int = 0,
) -> DecodingState:
    """The target makes all scales, one forward each: no loop, no waiting, and no draft.

    Args:
      models: the draft is not asked.
      request: the run's arrays.
      sampling: what is compiled in.
      rule: gives the target's tokens.
      trace: keep what happened at each target call.
      kept_scales: keep the target's logits of the scales before this one.

    Returns:
      The state behind the last scale.
    """
    models = dataclasses.replace(models, draft=None)
    pyramid = models.target.config.pyramid
    request = with_noise(request, pyramid, models.target.config.vocab_size)
    run = SpeculativeRun(
        models=models,
        target_modulations=models.modulations(models.target, request, sampling),
        draft_modulations=None,
        request=request,
        sampling=sampling,
        rule=rule,
        plan=plan_alone(pyramid.num_scales),
    )
    state = initial_state(
        models.target.config,
        models.quantizer,
        request,
        target_cache=models.target.make_cache(run.target_modulations.condition.shape[0]),
        kept_scales=kept_scales,
        trace=trace,
    )
    for checked in run.plan.windows:
        state = check_window_once(run, state, checked)
    return state


class BeforeTrial(struct.PyTreeNode):
    """What the target made, and what a draft is judged by.

    Attributes:
      tokens: int32 [batch, total_length].
      f_hats: see ``Decoded``.
      counters: of the target's calls.
      trace: in debugging mode.
      target_logits: guided, of the scales on trial, float32 [batch, their positions, vocab].
    """

    tokens: jax.Array
    f_hats: jax.Array
    counters: Counters
    trace: Any
    target_logits: jax.Array


@dataclasses.dataclass(frozen=True)
class OnTrial(DecoderInHalves[BeforeTrial]):
    """The target makes all scales; then the draft is judged on the first of them, in one forward.

    Each scale is drafted from the target's own scales before it, and judged whatever became of
    those. The pictures are the target's.

    Attributes:
      accept: when a drafted scale would have passed.
      scales: how many are judged, from the first.
      trace: keep what happened at each target call.
    """

    accept: AcceptanceRule
    scales: int
    trace: bool = False

    name = "speculative"
    halves = ("target", "draft")

    @property
    def needs_draft(self) -> bool:
        """It is what is judged."""
        return True

    @property
    def default_threshold(self) -> float:
        """The acceptance rule's own."""
        return self.accept.default_threshold

    def begin(
        self, model: VAR, quantizer: Quantizer, request: Request, sampling: TokenSampling
    ) -> BeforeTrial:
        """All scales."""
        state = run_alone(
            DecodingModels(target=model, quantizer=quantizer),
            request,
            sampling,
            self.accept,
            trace=self.trace,
            kept_scales=self.scales,
        )
        assert state.target_logits is not None
        return BeforeTrial(
            tokens=state.tokens,
            f_hats=state.f_hats,
            counters=state.counters,
            trace=state.trace,
            target_logits=state.target_logits,
        )

    def finish(
        self,
        model: VAR,
        quantizer: Quantizer,
        begun: BeforeTrial,
        request: Request,
        sampling: TokenSampling,
    ) -> Decoded:
        """The trial; it changes the counters alone."""
        pyramid, window = model.config.pyramid, Window(0, self.scales)
        modulations = class_modulations(model, request, sampling)
        logits, _ = forward_window(
            model,
            quantizer,
            modulations,
            begun.f_hats,
            model.make_cache(modulations.condition.shape[0], self.scales),
            window,
            request,
            sampling,
        )
        drafts = draw_tokens(logits, request, sampling, pyramid, window)
        checked = CheckWindow(window, drafted=self.scales)
        judging = Judging(request=request, sampling=sampling, rule=self.accept, pyramid=pyramid)
        check = what_the_target_saw(
            judging,
            checked,
            begun.target_logits,
            drafts,
            logits if self.accept.needs_draft_logits else None,
        )
        passed = judge(judging, check, checked).passed  # [batch, scales]
        place = pyramid.window(0, self.scales)
        same = split_by_scale(drafts == begun.tokens[:, place], pyramid, window)
        agreed = jnp.stack([jnp.sum(scale, dtype=jnp.int32) for scale in same])
        counters, accepted = begun.counters, jnp.sum(passed, axis=0, dtype=jnp.int32)

        def add(total: jax.Array, here: jax.Array | int) -> jax.Array:
            return total.at[: self.scales].add(here)

        counters = counters.replace(
            draft_calls=counters.draft_calls + 1,
            draft_tokens=counters.draft_tokens + len(window.positions(pyramid)),
            drafts=counters.drafts + 1,
            drafted=add(counters.drafted, request.batch),
            accepted=add(counters.accepted, accepted),
            rejected=add(counters.rejected, request.batch - accepted),
            agreed_tokens=add(counters.agreed_tokens, agreed),
        )
        return Decoded(
            tokens=begun.tokens, f_hats=begun.f_hats, counters=counters, trace=begun.trace
        )
