"""The draft proposes scales, one forward each, and keeps its KV cache in step."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from sdvar_jax.decoding.f_hat import extend
from sdvar_jax.decoding.speculative.run import SpeculativeRun
from sdvar_jax.decoding.speculative.state import DecodingState
from sdvar_jax.decoding.window import Window, draw_tokens, forward_window


def draft_window(run: SpeculativeRun, state: DecodingState, window: Window) -> DecodingState:
    """One forward of the draft; its last scale is proposed.

    Samples that already hold tokens at that scale (committed ahead of the others, or recycled)
    keep them.

    Args:
      run: what stays the same.
      state: the draft's cache is valid up to the window's start, f_hats up to its last scale.
      window: the scale to propose, or that one and the scale before it, whose tokens are known but
        which the draft has not seen (a bonus or a recycled scale).

    Returns:
      The state with the scale proposed for every sample.
    """
    draft, quantizer = run.models.draft, run.models.quantizer
    assert draft is not None
    assert run.draft_modulations is not None
    assert state.draft_cache is not None
    scale = window.stop - 1
    proposing = Window(scale, scale + 1)
    logits, cache = forward_window(
        draft,
        quantizer,
        run.draft_modulations,
        state.f_hats,
        state.draft_cache,
        window,
        run.request,
        run.sampling,
        logits_of=proposing,
    )
    drawn = draw_tokens(logits, run.request, run.sampling, run.pyramid, proposing)
    place = run.pyramid.window(scale, scale + 1)
    known = (state.proposed > scale)[:, None]  # [batch, 1]
    tokens = jnp.where(known, state.tokens[:, place], drawn)
    counters = state.counters.replace(
        draft_calls=state.counters.draft_calls + 1,
        draft_tokens=state.counters.draft_tokens + len(window.positions(run.pyramid)),
    )
    return state.replace(
        tokens=state.tokens.at[:, place].set(tokens),
        proposed=jnp.maximum(state.proposed, scale + 1),
        f_hats=extend(quantizer, state.f_hats, tokens, scale),
        draft_length=jnp.asarray(window.stop, jnp.int32),
        draft_cache=cache,
        draft_logits=(
            None if state.draft_logits is None else state.draft_logits.at[:, place].set(logits)
        ),
        counters=counters,
    )


def draft_scales(run: SpeculativeRun, state: DecodingState, scales: range) -> DecodingState:
    """Proposes these scales, a forward each; nothing without a draft.

    Args:
      run: what stays the same.
      state: see ``draft_window``.
      scales: the first of them is the first that the draft's cache does not hold.
    """
    if run.models.draft is None:
        return state
    for scale in scales:
        state = draft_window(run, state, window=Window(scale, scale + 1))
    return state


def propose_until(
    run: SpeculativeRun, state: DecodingState, stop: jax.Array, *, catches_up: bool
) -> DecodingState:
    """Drafts until every sample holds tokens at all scales before ``stop``.

    Args:
      run: what stays the same.
      state: see ``draft_window``.
      stop: scale behind the last to propose, int32 scalar.
      catches_up: whether the draft's cache may lag behind the tokens (bonus scales, recycling);
        compiles the two-scale windows that close the gap.
    """
    scales = run.pyramid.num_scales
    windows = [Window(scale, scale + 1) for scale in range(scales)]
    if catches_up:
        windows += [Window(scale, scale + 2) for scale in range(scales - 1)]
    branches = [functools.partial(draft_window, run, window=window) for window in windows]

    def lacks_proposals(state: DecodingState) -> jax.Array:
        return jnp.min(state.proposed) < stop

    def draft_once(state: DecodingState) -> DecodingState:
        index = state.draft_length
        if catches_up:
            lags = state.draft_length < jnp.min(state.proposed)
            index = index + jnp.where(lags, scales, 0)
        return jax.lax.switch(index, branches, state)

    return jax.lax.while_loop(lacks_proposals, draft_once, state)
