"""The draft proposes scales, one forward each, and keeps its KV cache in step."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from sdvar_jax.decoding.f_hat import extend
from sdvar_jax.decoding.speculative.run import Drafting
from sdvar_jax.decoding.speculative.state import DecodingState
from sdvar_jax.decoding.window import Window, draw_tokens, forward_window


def draft_window(drafting: Drafting, state: DecodingState, window: Window) -> DecodingState:
    """One forward of the draft; its last scale is proposed.

    Samples that already hold tokens at that scale (committed ahead of the others, or recycled)
    keep them.

    Args:
      drafting: what stays the same.
      state: the draft's cache is valid up to the window's start, f_hats up to its last scale.
      window: the scale to propose, or that one and the scale before it, whose tokens are known but
        which the draft has not seen (a bonus or a recycled scale).

    Returns:
      The state with the scale proposed for every sample.
    """
    request, sampling, pyramid = drafting.request, drafting.sampling, drafting.pyramid
    assert state.draft_cache is not None
    scale = window.stop - 1
    proposing = Window(scale, scale + 1)
    logits, cache = forward_window(
        drafting.model,
        drafting.quantizer,
        drafting.modulations,
        state.f_hats,
        state.draft_cache,
        window,
        request,
        sampling,
        logits_of=proposing,
    )
    drawn = draw_tokens(logits, request, sampling, pyramid, proposing)
    place = pyramid.window(scale, scale + 1)
    known = (state.proposed > scale)[:, None]  # [batch, 1]
    tokens = jnp.where(known, state.tokens[:, place], drawn)
    counters = state.counters.replace(
        draft_calls=state.counters.draft_calls + 1,
        draft_tokens=state.counters.draft_tokens + len(window.positions(pyramid)),
    )
    return state.replace(
        tokens=state.tokens.at[:, place].set(tokens),
        proposed=jnp.maximum(state.proposed, scale + 1),
        f_hats=extend(drafting.quantizer, state.f_hats, tokens, scale),
        draft_length=jnp.asarray(window.stop, jnp.int32),
        draft_cache=cache,
        draft_logits=(
            None if state.draft_logits is None else state.draft_logits.at[:, place].set(logits)
        ),
        counters=counters,
    )


def draft_scales(drafting: Drafting | None, state: DecodingState, scales: range) -> DecodingState:
    """Proposes these scales, a forward each; nothing without a draft.

    Args:
      drafting: what stays the same; None without a draft.
      state: see ``draft_window``.
      scales: the first of them is the first that the draft's cache does not hold.
    """
    if drafting is None:
        return state
    for scale in scales:
        state = draft_window(drafting, state, window=Window(scale, scale + 1))
    return state


def propose_until(
    drafting: Drafting, state: DecodingState, stop: jax.Array, *, last: int, catches_up: bool
) -> DecodingState:
    """Drafts until every sample holds tokens at all scales before ``stop``.

    Args:
      drafting: what stays the same.
      state: see ``draft_window``.
      stop: scale behind the last to propose, int32 scalar.
      last: no scale from this one on is proposed.
      catches_up: whether the draft's cache may lag behind the tokens (bonus scales, recycling);
        compiles the two-scale windows that close the gap.
    """
    if last == 0:
        return state
    windows = [Window(scale, scale + 1) for scale in range(last)]
    if catches_up:
        windows += [Window(scale, scale + 2) for scale in range(last - 1)]
    branches = [functools.partial(draft_window, drafting, window=window) for window in windows]

    def lacks_proposals(state: DecodingState) -> jax.Array:
        return jnp.min(state.proposed) < stop

    def draft_once(state: DecodingState) -> DecodingState:
        index = state.draft_length
        if catches_up:
            lags = state.draft_length < jnp.min(state.proposed)
            index = index + jnp.where(lags, last, 0)
        return jax.lax.switch(index, branches, state)

    return jax.lax.while_loop(lacks_proposals, draft_once, state)
