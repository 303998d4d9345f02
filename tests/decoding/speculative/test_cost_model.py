"""The windows that the cost model picks are the cheapest there are."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from sdvar_jax.config import PYRAMID_256, ScalePyramid
from sdvar_jax.decoding.speculative import CostModel, ForwardCost, best_gammas
from sdvar_jax.decoding.speculative.cost_model import choose_window, expected_time
from sdvar_jax.decoding.speculative.windows import check_window, plan_windows
from sdvar_jax.errors import SdvarError

PYRAMID = ScalePyramid((1, 2, 3, 4))
SCALES = PYRAMID.num_scales
COST = CostModel(draft=ForwardCost(1.0, 0.01), target=ForwardCost(3.0, 0.1))
ACCEPTANCE = (0.9, 0.7, 0.5, 0.2)


def time_of_outcome(gammas, passes, limit, bonus):
    """Seconds of the run in which drafts of scale s pass exactly if ``passes[s]``."""
    seconds, start = sum(COST.draft.seconds(n) for n in PYRAMID.lengths[limit:]), 0
    while start < limit:
        checked = check_window(start, gammas[start], limit, bonus)
        window = checked.window
        seconds += COST.target.seconds(sum(PYRAMID.lengths[window.start : window.stop]))
        drafted = range(start, checked.drafted_stop)
        seconds += sum(COST.draft.seconds(PYRAMID.lengths[scale]) for scale in drafted)
        rejected = [scale for scale in drafted if not passes[scale]]
        start = rejected[0] + 1 if rejected else window.stop
    return seconds


def mean_over_outcomes(gammas, limit, bonus):
    """The expected time the long way: over all patterns of passing and failing."""
    total = 0.0
    for passes in itertools.product((True, False), repeat=SCALES):
        weights = [a if ok else 1 - a for a, ok in zip(ACCEPTANCE, passes, strict=True)]
        total += np.prod(weights) * time_of_outcome(gammas, passes, limit, bonus)
    return total


@pytest.mark.parametrize("bonus", [True, False])
@pytest.mark.parametrize("limit", [2, 4])
@pytest.mark.parametrize("gammas", [(0, 0, 0, 0), (1, 2, 0, 1), (4, 3, 2, 1)])
def test_the_expected_time_is_the_mean_over_all_outcomes(gammas, limit, bonus):
    expected = expected_time(gammas, ACCEPTANCE, PYRAMID, COST, limit, bonus)
    assert expected == pytest.approx(mean_over_outcomes(gammas, limit, bonus))


@pytest.mark.parametrize("bonus", [True, False])
@pytest.mark.parametrize("limit", [3, 4])
def test_no_gammas_are_cheaper_than_the_best(limit, bonus):
    best = best_gammas(ACCEPTANCE, PYRAMID, COST, limit=limit, bonus=bonus)
    assert len(best) == limit

    def seconds(gammas):
        return expected_time(gammas, ACCEPTANCE, PYRAMID, COST, limit, bonus)

    choices = itertools.product(range(SCALES + 1), repeat=limit)
    assert seconds(best) == pytest.approx(min(seconds(gammas) for gammas in choices))


def test_a_draft_that_never_passes_is_not_asked():
    assert best_gammas((0.0,) * 10, PYRAMID_256, COST) == (0,) * 10


def test_a_cheap_draft_that_always_passes_makes_one_call():
    cheap = CostModel(draft=ForwardCost(0.01, 0.0001), target=ForwardCost(3.0, 0.1))
    best = best_gammas((1.0,) * 10, PYRAMID_256, cheap)
    assert check_window(0, best[0], 10, True).window.stop == 10


def test_large_scales_are_not_checked_where_checking_them_does_not_pay():
    """Arithmetic binds: drafting the last scales costs more than it saves."""
    binds = CostModel(draft=ForwardCost(0.3, 0.05), target=ForwardCost(3.0, 0.06))
    best = best_gammas((0.9,) * 10, PYRAMID_256, binds)
    assert best[0] > 0
    assert best[-2:] == (0, 0)


def test_costs_are_fitted_from_measured_forwards():
    cost = ForwardCost(2.0, 0.25)
    tokens = [1, 16, 100, 256]
    fitted = ForwardCost.fit(tokens, [cost.seconds(n) for n in tokens])
    assert (fitted.fixed, fitted.per_token) == pytest.approx((2.0, 0.25))


def test_a_fit_never_goes_below_nothing():
    fitted = ForwardCost.fit([1, 10, 100], [0.1, 1.2, 13.0])
    assert fitted.fixed >= 0
    assert fitted.per_token > 0


@pytest.mark.parametrize("arguments", [(0.0, 0.0), (-1.0, 0.1), (1.0, -0.1)])
def test_a_forward_that_costs_nothing_is_refused(arguments):
    with pytest.raises(SdvarError, match="cannot cost nothing"):
        ForwardCost(*arguments)


def test_wrong_numbers_of_measurements_are_refused():
    with pytest.raises(SdvarError, match="two or more measured forwards"):
        ForwardCost.fit([1], [0.1])
    with pytest.raises(SdvarError, match="acceptance for each of the 4 scales"):
        best_gammas((0.5,) * 3, PYRAMID, COST)


def chosen_gamma(acceptance, start=0):
    choices = (0, 1, 3)
    plan = plan_windows((choices,) * SCALES, SCALES, bonus=True)
    args = jnp.asarray(start, jnp.int32), jnp.asarray(acceptance, jnp.float32)
    return choices[int(choose_window(plan, PYRAMID, COST, *args))]


def test_adaptive_windows_grow_with_the_acceptance_seen():
    chosen = [chosen_gamma(acceptance) for acceptance in (0.0, 0.3, 0.6, 1.0)]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (0, 3)
