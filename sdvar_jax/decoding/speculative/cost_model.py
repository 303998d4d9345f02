"""What a forward costs, and which windows follow from it.

A forward over n tokens takes about max(reading the weights, computing the tokens) plus launches;
small scales cost weight reads and launches, so many are checked for the price of one, large scales
cost arithmetic, so checking them is never free. An affine law in n fits measured times well enough
to choose windows by.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sdvar_jax.config import ScalePyramid
from sdvar_jax.config.validation import require
from sdvar_jax.decoding.speculative.windows import WindowPlan, check_window


@dataclasses.dataclass(frozen=True)
class ForwardCost:
    """Seconds of one forward over n tokens: ``fixed + per_token * n``."""

    fixed: float
    per_token: float

    def __post_init__(self) -> None:
        require(
            self.fixed >= 0 and self.per_token >= 0 and self.fixed + self.per_token > 0,
            f"a forward cannot cost nothing or less, got {self}",
        )

    def seconds(self, tokens: int) -> float:
        """Seconds of a forward over ``tokens`` tokens."""
        return self.fixed + self.per_token * tokens

    @classmethod
    def fit(cls, tokens: Sequence[int], seconds: Sequence[float]) -> ForwardCost:
        """Least squares in relative error over measured forwards, both terms kept from below 0."""
        n, t = np.asarray(tokens, float), np.asarray(seconds, float)
        require(n.size >= 2 and n.shape == t.shape, "fit needs two or more measured forwards")
        columns = np.stack([np.ones_like(n), n], axis=1) / t[:, None]
        (fixed, per_token), *_ = np.linalg.lstsq(columns, np.ones_like(t), rcond=None)
        return cls(max(float(fixed), 0.0), max(float(per_token), 1e-12))


@dataclasses.dataclass(frozen=True)
class CostModel:
    """Costs of the draft's and the target's forwards in the same unit.

    Attributes:
      draft: of one forward of the draft.
      target: of one forward of the target.
      turn: what a turn of the decoding loop costs besides its forwards: judging, committing, and on
        a GPU waiting for the host, which must learn what comes next.
    """

    draft: ForwardCost
    target: ForwardCost
    turn: float = 0.0

    def __post_init__(self) -> None:
        require(self.turn >= 0, f"a turn cannot cost less than nothing, got {self.turn}")


# The shape of d16 and d30 at batch 1 on an H200, in units of about half a millisecond: fitted to
# whole runs (docs/performance.md), so that a draft's cost has that of judging it in it. Times
# measured with ``python -m benchmarks.windows`` serve better elsewhere.
DEFAULT_COST = CostModel(
    draft=ForwardCost(fixed=1.3, per_token=0.005),
    target=ForwardCost(fixed=2.6, per_token=0.02),
    turn=4.0,
)


def expected_time(
    gammas: Sequence[int],
    acceptance: Sequence[float],
    pyramid: ScalePyramid,
    cost: CostModel,
    limit: int,
    bonus: bool,
) -> float:
    """Expected seconds of a batch of one under a gamma a start scale, each window a turn.

    Args:
      gammas: gamma at each start scale below ``limit``.
      acceptance: probability that a drafted scale passes, [num_scales].
      pyramid: the scales.
      cost: of the forwards.
      limit: scale behind the last that is checked; the draft alone makes those behind it.
      bonus: whether windows end with a bonus scale.
    """
    tail = sum(cost.draft.seconds(n) for n in pyramid.lengths[limit:])
    remaining = [0.0] * (limit + 1)
    for start in reversed(range(limit)):
        remaining[start] = _expected_from(
            start, gammas[start], acceptance, pyramid, cost, limit, bonus, remaining
        )
    return remaining[0] + tail


def _expected_from(
    start: int,
    gamma: int,
    acceptance: Sequence[float],
    pyramid: ScalePyramid,
    cost: CostModel,
    limit: int,
    bonus: bool,
    remaining: Sequence[float],
) -> float:
    """Expected seconds from ``start`` on if ``gamma`` is used there."""
    checked = check_window(start, gamma, limit, bonus)
    window = checked.window
    tokens = pyramid.offsets[window.stop] - pyramid.offsets[start]
    seconds = cost.target.seconds(tokens) + cost.turn
    reached = 1.0
    for scale in range(start, checked.drafted_stop):
        seconds += cost.draft.seconds(pyramid.lengths[scale])
        # Rejected here: the target's own tokens are committed, the next window starts behind.
        seconds += reached * (1 - acceptance[scale]) * remaining[scale + 1]
        reached *= acceptance[scale]
    return seconds + reached * remaining[window.stop]


def best_gammas(
    acceptance: Sequence[float],
    pyramid: ScalePyramid,
    cost: CostModel,
    *,
    limit: int | None = None,
    bonus: bool = True,
) -> tuple[int, ...]:
    """The gamma at each start scale with the least expected time, by dynamic programming.

    Args:
      acceptance: probability that a drafted scale passes, [num_scales].
      pyramid: the scales.
      cost: of the forwards.
      limit: scale behind the last that is checked; None checks all.
      bonus: whether windows end with a bonus scale.

    Returns:
      One gamma a start scale; 0 where the target does better alone.
    """
    require(
        len(acceptance) == pyramid.num_scales,
        f"give an acceptance for each of the {pyramid.num_scales} scales",
    )
    limit = pyramid.num_scales if limit is None else limit
    remaining = [0.0] * (limit + 1)
    gammas = [0] * limit
    for start in reversed(range(limit)):
        options = {
            gamma: _expected_from(start, gamma, acceptance, pyramid, cost, limit, bonus, remaining)
            for gamma in range(limit - start + 1)
        }
        gammas[start] = min(options, key=options.__getitem__)
        remaining[start] = options[gammas[start]]
    return tuple(gammas)


@functools.lru_cache(maxsize=32)
def _window_costs(
    plan: WindowPlan, pyramid: ScalePyramid, cost: CostModel, in_loop: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Cost of each window [windows], and of its scales made by the target [windows, scales].

    Windows that the target makes alone share a turn, and take none outside of the loop.
    """
    costs = np.zeros(len(plan.windows), np.float32)
    saved = np.zeros((len(plan.windows), pyramid.num_scales), np.float32)
    for i, checked in enumerate(plan.windows):
        window = checked.window
        tokens = pyramid.offsets[window.stop] - pyramid.offsets[window.start]
        costs[i] = cost.target.seconds(tokens) + sum(
            cost.draft.seconds(pyramid.lengths[scale])
            for scale in range(window.start, checked.drafted_stop)
        )
        if checked.drafted or in_loop:
            costs[i] += cost.turn / len(plan.turn(window.start, i % plan.choices))
        for j, scale in enumerate(window.scales):
            saved[i, j] = cost.target.seconds(pyramid.lengths[scale])
    return costs, saved


def _seconds_until(forward: ForwardCost, pyramid: ScalePyramid) -> np.ndarray:
    """Seconds of all scales before each, one forward a scale, [num_scales + 1]."""
    return np.cumsum([0.0, *map(forward.seconds, pyramid.lengths)])


def _until(forward: ForwardCost, pyramid: ScalePyramid) -> jax.Array:
    """The same within a program, float32."""
    return jnp.asarray(_seconds_until(forward, pyramid), jnp.float32)


def _weigh(
    costs: Any, saved: Any, drafts_before: Any, acceptance: Any, proven: Any, allowance: Any
) -> tuple[Any, Any, Any]:
    """The law of ``choose_window``, on NumPy's arrays before a run and on JAX's within it.

    Args:
      costs: of the windows, [windows].
      saved: what each scale of a window costs the target, [windows, num_scales].
      drafts_before: drafts at stake before the j-th scale of a window, [num_scales].
      acceptance: probability that a drafted scale of one sample passes.
      proven: the same as a cautious estimate.
      allowance: seconds that may be lost.

    Returns:
      Of each window the likely speed-up over the target alone, the proven loss, and whether that
      is allowed.
    """
    loss = costs - saved @ proven**drafts_before
    # A window of the target alone loses nothing, up to rounding.
    allowed = (loss <= allowance) | (loss <= 1e-4 * costs)
    return saved @ acceptance**drafts_before / costs, loss, allowed


def acceptance_estimates(
    accepted: jax.Array | float, judged: jax.Array | float
) -> tuple[jax.Array | float, jax.Array | float]:
    """The probability that a drafted scale passes, from those judged so far.

    Returns:
      What is likely, as if one more had been judged and passed, so that an unknown draft is tried;
      and what is proven, as if that one had failed.
    """
    return (accepted + 1.0) / (judged + 1.0), accepted / (judged + 1.0)


class Spent(struct.PyTreeNode):
    """What a run has done so far, as the cost model counts it; int32 scalars but for ``turns``.

    Attributes:
      committed: scales that are made.
      draft_length: scales that the draft's KV cache holds.
      draft_calls: forwards of the draft.
      draft_tokens: positions that they computed for one sample.
      target_calls: forwards of the target.
      target_tokens: likewise.
      turns: of the loop, float32.
    """

    committed: jax.Array
    draft_length: jax.Array
    draft_calls: jax.Array
    draft_tokens: jax.Array
    target_calls: jax.Array
    target_tokens: jax.Array
    turns: jax.Array

    def lost(self, cost: CostModel, pyramid: ScalePyramid) -> jax.Array:
        """Seconds more than the target alone would have taken; below 0 where time was saved."""
        spent = (
            cost.draft.fixed * self.draft_calls
            + cost.draft.per_token * self.draft_tokens
            + cost.target.fixed * self.target_calls
            + cost.target.per_token * self.target_tokens
            + cost.turn * self.turns
        )
        return spent - _until(cost.target, pyramid)[self.committed]


def choose_window(
    plan: WindowPlan,
    pyramid: ScalePyramid,
    cost: CostModel,
    spent: Spent,
    at_stake: jax.Array,
    acceptance: jax.Array | float,
    proven: jax.Array | float,
    overhead: float,
) -> jax.Array:
    """The choice that makes most of the time it takes and risks no more than is allowed.

    A scale of a window is committed for all samples if each passes the drafts before it that it
    has not committed yet, in both modes of progress, with recycled drafts as with new ones, and
    for the bonus scale as for any other. So a window is worth the target time of its scales, each
    weighed by acceptance**(drafts at stake before it), as if samples passed independently with one
    acceptance; divided by its cost that is its speed-up over the target alone. What some samples
    keep beyond the slowest one is worth nothing here. A window is allowed if, were the acceptance
    no more than what is proven, the run would still have lost no more than its allowance: trying
    an unknown draft out begins with small windows, and a draft that never passes costs the
    allowance and no more.

    Args:
      plan: the windows.
      pyramid: the scales.
      cost: of the forwards.
      spent: what the run did so far.
      at_stake: samples that have not committed each scale yet, int32 [num_scales]; see
        ``DecodingState.at_stake``.
      acceptance: probability that a drafted scale of one sample passes, float32 scalar; see
        ``acceptance_estimates``.
      proven: the same as a cautious estimate, float32 scalar.
      overhead: what may be lost, as a share of the target's time for all scales.

    Returns:
      int32 scalar; with no window allowed, the one that loses least.
    """
    chex.assert_shape(at_stake, (pyramid.num_scales,))
    costs, saved = map(jnp.asarray, _window_costs(plan, pyramid, cost, in_loop=True))
    drafts = jnp.asarray([checked.drafted > 0 for checked in plan.windows])
    start = jnp.minimum(spent.committed, plan.limit - 1)
    draft_until = _until(cost.draft, pyramid)
    # Scales that the target made alone are still to be read by the draft.
    behind = draft_until[start] - draft_until[jnp.minimum(spent.draft_length, start)]
    costs = costs + jnp.where(drafts, behind, 0.0)

    before = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(at_stake)])  # [num_scales + 1]
    stops = jnp.minimum(start + jnp.arange(pyramid.num_scales), pyramid.num_scales)
    # Drafts at stake before the j-th scale of a window from here.
    drafts_before = (before[stops] - before[start]).astype(jnp.float32)  # [num_scales]

    allowance = overhead * _until(cost.target, pyramid)[-1] - spent.lost(cost, pyramid)
    # Right for the windows that start here.
    weighed = _weigh(costs, saved, drafts_before, acceptance, proven, allowance)
    speedup, loss, allowed = (each.reshape(-1, plan.choices)[start] for each in weighed)
    best = jnp.argmax(jnp.where(allowed, speedup, -1.0))
    return jnp.where(jnp.any(allowed), best, jnp.argmin(loss)).astype(jnp.int32)


def trial_scales(pyramid: ScalePyramid, cost: CostModel, overhead: float) -> int:
    """How many scales may be drafted for nothing but to see whether they pass.

    They are the first ones, drafted in one forward, which takes no more than half of ``overhead``
    of the target's time for all scales: judging costs as well, and so does a second model.
    """
    allowance = overhead * _seconds_until(cost.target, pyramid)[-1] / 2
    positions = pyramid.offsets[1:]
    return sum(cost.draft.seconds(tokens) <= allowance for tokens in positions)


ALONE, TRIAL, FIRST_CHOICE = range(3)
"""How an adaptive run begins: the target alone, likewise and then a draft on trial, or a window."""


def choose_start(
    plan: WindowPlan,
    pyramid: ScalePyramid,
    cost: CostModel,
    batch: int,
    accepted: float,
    judged: float,
    overhead: float,
) -> int:
    """How a run begins, by the law of ``choose_window``, but before any program is called.

    Args:
      plan: the windows; at each start scale one of them is of the target alone.
      pyramid: the scales.
      cost: of forwards and turns.
      batch: samples.
      accepted: drafted scales that passed in earlier runs.
      judged: how many were judged there.
      overhead: as in ``choose_window``.

    Returns:
      ``ALONE``, the target makes all scales; ``TRIAL``, it does, and then the draft is judged
      (``trial_scales``), for it is promising, but beginning with a window of it would risk more
      than is allowed; ``FIRST_CHOICE`` + i, the i-th window from the first scale, and the loop.
    """
    costs, saved = (
        table[: plan.choices] for table in _window_costs(plan, pyramid, cost, in_loop=False)
    )
    drafts = np.asarray([plan.at(0, choice).drafted > 0 for choice in range(plan.choices)])
    speedup, _, allowed = _weigh(
        costs,
        saved,
        batch * np.arange(pyramid.num_scales),
        *acceptance_estimates(accepted, judged),
        overhead * _seconds_until(cost.target, pyramid)[-1],
    )
    choice = int(np.argmax(np.where(allowed, speedup, -1.0)))
    if drafts[choice]:
        return FIRST_CHOICE + choice
    promising = np.any(drafts & (speedup > 1.0))
    return TRIAL if promising and trial_scales(pyramid, cost, overhead) > 0 else ALONE
