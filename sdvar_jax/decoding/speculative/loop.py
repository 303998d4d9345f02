"""Window after window: what of a speculative run the device decides as it goes.

On a GPU each turn of the loop and each branch chosen costs a round trip to the host and the launch
of all its kernels, which then cannot hide behind the work before it. So what can be laid out
beforehand stands outside of it: the first window, and the scales behind the last checked one.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.decoding.speculative.checking import check_window_once
from sdvar_jax.decoding.speculative.commit import commit_unchecked
from sdvar_jax.decoding.speculative.cost_model import Spent, acceptance_estimates, choose_window
from sdvar_jax.decoding.speculative.drafting import draft_scales, draft_window, propose_until
from sdvar_jax.decoding.speculative.run import SpeculativeRun
from sdvar_jax.decoding.speculative.state import DecodingState
from sdvar_jax.decoding.speculative.windows import CALLS_ALONE, CheckWindow
from sdvar_jax.decoding.window import Window


def draft_and_check(
    run: SpeculativeRun, state: DecodingState, checked: CheckWindow
) -> DecodingState:
    """A window whose start is known; if it drafts, the draft has seen all scales before it."""
    state = draft_scales(run.drafting, state, checked.drafted_scales)
    return check_window_once(run, state, checked=checked)


def run_loop(run: SpeculativeRun, state: DecodingState) -> DecodingState:
    """The windows behind the first, if that is known, until nothing is left to decide."""
    start, stop = int(run.first is not None), run.decided_until
    if start >= stop:
        return state
    return jax.lax.while_loop(
        lambda state: state.committed < stop,
        functools.partial(_step, run, start, stop),
        state,
    )


def draft_the_rest(run: SpeculativeRun, state: DecodingState) -> DecodingState:
    """The scales behind the last that anything is decided of, in one go."""
    drafting, start, scales = run.drafting, run.decided_until, run.pyramid.num_scales
    if start == scales:
        return state
    assert drafting is not None
    if run.plan.leaves_undrafted:
        # The draft may not have seen the scale before; where it has, it makes the same of it.
        state = draft_window(drafting, state, window=Window(start - 1, start + 1))
        start += 1
    state = draft_scales(drafting, state, range(start, scales))
    return commit_unchecked(run, state)


def _step(run: SpeculativeRun, start: int, stop: int, state: DecodingState) -> DecodingState:
    """Drafts and checks the windows of a turn; behind the last checked scale, drafts the rest.

    The scales committed before it lie in start..stop - 1.
    """
    plan, scales = run.plan, run.pyramid.num_scales
    turns = [plan.turn(s, c) for s in range(start, plan.limit) for c in range(plan.choices)]
    branches = [functools.partial(_check_windows, run, windows) for windows in turns]
    stops = [windows[0].drafted_stop for windows in turns]
    index = (state.committed - start) * plan.choices
    if plan.choices > 1:
        index = index + _choice(run, state)
    if plan.limit < stop:
        branches.append(functools.partial(commit_unchecked, run))
        stops.append(scales)
        index = jnp.where(state.committed >= plan.limit, len(turns), index)
    if run.drafting is not None:
        until = jnp.asarray(np.asarray(stops, np.int32))[index]
        lags = plan.leaves_undrafted or run.recycle
        state = propose_until(run.drafting, state, until, last=run.proposed_until, catches_up=lags)
    return jax.lax.switch(index, branches, state)


def _check_windows(
    run: SpeculativeRun, windows: tuple[CheckWindow, ...], state: DecodingState
) -> DecodingState:
    """Checks windows that follow each other, see ``WindowPlan.turn``."""
    for checked in windows:
        state = check_window_once(run, state, checked=checked)
    return state


def _choice(run: SpeculativeRun, state: DecodingState) -> jax.Array:
    """The adaptive choice, from the share of judged scales that passed.

    That is the share of one sample: all of the batch are pooled, and those of earlier batches
    count like those of this one so far.
    """
    counters = state.counters
    accepted = jnp.sum(counters.accepted) + run.request.acceptance_seen[0]
    rejected = jnp.sum(counters.rejected)
    judged = jnp.sum(counters.accepted) + rejected + run.request.acceptance_seen[1]
    spent = Spent(
        committed=state.committed,
        draft_length=state.draft_length,
        draft_calls=counters.draft_calls,
        draft_tokens=counters.draft_tokens,
        target_calls=counters.target_calls,
        target_tokens=counters.target_tokens,
        # A turn of the target alone is several of its calls.
        turns=counters.drafts + (counters.target_calls - counters.drafts) / CALLS_ALONE,
    )
    acceptance, proven = acceptance_estimates(accepted, judged)
    return choose_window(
        run.plan,
        run.pyramid,
        run.cost,
        spent,
        state.at_stake,
        acceptance,
        proven,
        run.overhead,
    )
