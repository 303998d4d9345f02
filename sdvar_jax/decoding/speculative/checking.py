"""The target checks a window of proposals in one forward."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sdvar_jax.decoding.f_hat import NO_TOKEN, extend
from sdvar_jax.decoding.speculative.acceptance import Check
from sdvar_jax.decoding.speculative.commit import Verdict, commit
from sdvar_jax.decoding.speculative.run import SpeculativeRun
from sdvar_jax.decoding.speculative.state import DecodingState
from sdvar_jax.decoding.speculative.windows import CheckWindow
from sdvar_jax.decoding.window import (
    Window,
    apply_forced,
    draw_filtered,
    filtered,
    forward_window,
    split_by_scale,
)
from sdvar_jax.sampling import gumbel_noise, uniform_noise
from sdvar_jax.sampling.noise import RESIDUAL_STREAM


def _extend_proposals(
    run: SpeculativeRun, state: DecodingState, checked: CheckWindow
) -> DecodingState:
    """Brings f_hats in step with proposals that no draft wrote (self-speculation)."""
    f_hats = state.f_hats
    for scale in range(checked.window.start, checked.window.stop - 1):
        place = run.pyramid.window(scale, scale + 1)
        f_hats = extend(run.models.quantizer, f_hats, state.tokens[:, place], scale)
    return state.replace(f_hats=f_hats)


def _what_the_target_saw(
    run: SpeculativeRun, state: DecodingState, checked: CheckWindow, logits: jax.Array
) -> Check:
    """Everything an acceptance rule may look at."""
    pyramid, request, window = run.pyramid, run.request, checked.window
    start = pyramid.offsets[window.start]
    stop = pyramid.offsets[checked.drafted_stop]
    positions = jnp.arange(start, stop, dtype=jnp.int32)
    target_filtered = filtered(logits, request, run.sampling)
    draft_logits = None if state.draft_logits is None else state.draft_logits[:, start:stop]
    random = run.rule.needs_randomness
    vocab = logits.shape[-1]
    return Check(
        draft_tokens=state.tokens[:, start:stop],
        target_logits=logits,
        target_filtered=target_filtered,
        target_tokens=draw_filtered(target_filtered, request, pyramid, window),
        draft_logits=draft_logits,
        draft_filtered=(
            None if draft_logits is None else filtered(draft_logits, request, run.sampling)
        ),
        uniform=(uniform_noise(request.seed, request.sample_ids, positions) if random else None),
        fresh_noise=(
            gumbel_noise(request.seed, request.sample_ids, positions, vocab, RESIDUAL_STREAM)
            if random
            else None
        ),
    )


def _judge(run: SpeculativeRun, check: Check, checked: CheckWindow) -> Verdict:
    """Which drafted scales pass, and the target's tokens."""
    if checked.drafted == 0:
        batch = check.target_tokens.shape[0]
        return Verdict(passed=jnp.zeros((batch, 0), bool), tokens=check.target_tokens)
    scores = run.rule.score(check).astype(jnp.float32)  # [batch, drafted positions]
    tokens = run.rule.tokens(check)
    drafted = Window(checked.window.start, checked.drafted_stop)
    passed = []
    for points, proposals in zip(
        split_by_scale(scores, run.pyramid, drafted),
        split_by_scale(check.draft_tokens, run.pyramid, drafted),
        strict=True,
    ):
        total, count = jnp.sum(points, axis=1), points.shape[1]
        # Where nothing was proposed nothing passes, however lax the rule.
        proposed = proposals[:, 0] != NO_TOKEN
        passed.append(proposed & run.rule.passes(total, count, run.request.threshold))
    tokens = apply_forced(tokens, run.request, run.pyramid, checked.window)
    return Verdict(passed=jnp.stack(passed, axis=1), tokens=tokens)


def check_window_once(
    run: SpeculativeRun, state: DecodingState, checked: CheckWindow
) -> DecodingState:
    """One forward of the target over a window, and what follows from it.

    Args:
      run: what stays the same.
      state: every sample holds proposals at the drafted scales of the window, which starts at the
        committed scale of the slowest sample.
      checked: the window.

    Returns:
      The state with at least one scale more committed for the slowest sample.
    """
    if run.models.draft is None:
        state = _extend_proposals(run, state, checked)
    logits, cache = forward_window(
        run.models.target,
        run.models.quantizer,
        run.target_modulations,
        state.f_hats,
        state.target_cache,
        checked.window,
        run.request,
        run.sampling,
    )
    check = _what_the_target_saw(run, state, checked, logits)
    verdict = _judge(run, check, checked)
    return commit(run, state.replace(target_cache=cache), checked, verdict)
