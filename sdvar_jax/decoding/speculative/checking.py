"""The target checks a window of proposals in one forward."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sdvar_jax.decoding.f_hat import NO_TOKEN, extend
from sdvar_jax.decoding.speculative.acceptance import Check
from sdvar_jax.decoding.speculative.commit import Verdict, commit
from sdvar_jax.decoding.speculative.run import Judging, SpeculativeRun
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


def what_the_target_saw(
    judging: Judging,
    checked: CheckWindow,
    target_logits: jax.Array,
    draft_tokens: jax.Array,
    draft_logits: jax.Array | None,
) -> Check:
    """Everything an acceptance rule may look at.

    Args:
      judging: the rule, and what it goes by.
      checked: the window.
      target_logits: guided, float32 [batch, window length, vocab].
      draft_tokens: of the drafted scales, int32 [batch, drafted positions].
      draft_logits: guided, float32 [batch, drafted positions, vocab], where the rule needs them.
    """
    pyramid, request, sampling = judging.pyramid, judging.request, judging.sampling
    window, random = checked.window, judging.rule.needs_randomness
    start, stop = pyramid.offsets[window.start], pyramid.offsets[checked.drafted_stop]
    positions = jnp.arange(start, stop, dtype=jnp.int32)
    target_filtered = filtered(target_logits, request, sampling)
    vocab = target_logits.shape[-1]
    return Check(
        draft_tokens=draft_tokens,
        target_logits=target_logits,
        target_filtered=target_filtered,
        target_tokens=draw_filtered(target_filtered, request, pyramid, window),
        draft_logits=draft_logits,
        draft_filtered=(
            None if draft_logits is None else filtered(draft_logits, request, sampling)
        ),
        uniform=(uniform_noise(request.seed, request.sample_ids, positions) if random else None),
        fresh_noise=(
            gumbel_noise(request.seed, request.sample_ids, positions, vocab, RESIDUAL_STREAM)
            if random
            else None
        ),
    )


def judge(judging: Judging, check: Check, checked: CheckWindow) -> Verdict:
    """Which drafted scales pass, and the target's tokens."""
    if checked.drafted == 0:
        batch = check.target_tokens.shape[0]
        return Verdict(passed=jnp.zeros((batch, 0), bool), tokens=check.target_tokens)
    rule, pyramid = judging.rule, judging.pyramid
    scores = rule.score(check).astype(jnp.float32)  # [batch, drafted positions]
    tokens = rule.tokens(check)
    drafted = Window(checked.window.start, checked.drafted_stop)
    passed = []
    for points, proposals in zip(
        split_by_scale(scores, pyramid, drafted),
        split_by_scale(check.draft_tokens, pyramid, drafted),
        strict=True,
    ):
        total, count = jnp.sum(points, axis=1), points.shape[1]
        # Where nothing was proposed nothing passes, however lax the rule.
        proposed = proposals[:, 0] != NO_TOKEN
        passed.append(proposed & rule.passes(total, count, judging.request.threshold))
    tokens = apply_forced(tokens, judging.request, pyramid, checked.window)
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
    assert state.target_cache is not None
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
    pyramid, window = run.pyramid, checked.window
    drafted = slice(pyramid.offsets[window.start], pyramid.offsets[checked.drafted_stop])
    check = what_the_target_saw(
        run.judging,
        checked,
        logits,
        state.tokens[:, drafted],
        None if state.draft_logits is None else state.draft_logits[:, drafted],
    )
    verdict = judge(run.judging, check, checked)
    kept = state.target_logits
    if kept is not None and pyramid.offsets[window.stop] <= kept.shape[1]:
        kept = kept.at[:, pyramid.window(window.start, window.stop)].set(logits)
    return commit(run, state.replace(target_cache=cache, target_logits=kept), checked, verdict)
