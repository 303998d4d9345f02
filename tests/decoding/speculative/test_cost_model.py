"""The windows that the cost model picks are the cheapest there are."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdvar_jax.config import PYRAMID_256, ScalePyramid
from sdvar_jax.decoding.speculative import CostModel, ForwardCost, best_gammas
from sdvar_jax.decoding.speculative.cost_model import (
    Spent,
    acceptance_estimates,
    choose_window,
    expected_time,
)
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


CHOICES = (0, 1, 3)
PLAN = plan_windows((CHOICES,) * SCALES, SCALES, bonus=True)


def spent_so_far(committed=0, draft_length=0, draft=(0, 0), target=(0, 0)):
    numbers = committed, draft_length, *draft, *target
    return Spent(*(jnp.asarray(number, jnp.int32) for number in numbers), turns=jnp.zeros(()))


@functools.partial(jax.jit, static_argnames="cost")
def choice(spent, acceptance, proven, overhead, cost=COST, at_stake=(1,) * SCALES):
    at_stake = jnp.asarray(at_stake, jnp.int32)
    return choose_window(PLAN, PYRAMID, cost, spent, at_stake, acceptance, proven, overhead)


def chosen_gamma(acceptance, proven, overhead=0.1, at_stake=(1,) * SCALES, **spent):
    chosen = choice(spent_so_far(**spent), acceptance, proven, overhead, at_stake=at_stake)
    return CHOICES[int(chosen)]


def at_stake_of(progress):
    """Samples that have yet to commit each scale."""
    return tuple(sum(made <= scale for made in progress) for scale in range(SCALES))


def test_adaptive_windows_grow_with_the_acceptance_seen():
    chosen = [chosen_gamma(acceptance, acceptance) for acceptance in (0.0, 0.3, 0.6, 1.0)]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (0, 3)


def test_an_unknown_draft_is_tried_out_as_far_as_the_allowance_goes():
    chosen = [chosen_gamma(1.0, 0.0, overhead) for overhead in (0.0, 0.2, 10.0)]
    assert chosen == sorted(chosen)
    assert (chosen[0], chosen[-1]) == (0, 3)


def test_what_was_lost_already_is_taken_off_the_allowance():
    wasted = {"committed": 1, "draft_length": 1, "target": (1, 1)}
    assert chosen_gamma(1.0, 0.0, 0.5, **wasted, draft=(1, 1)) > 0
    assert chosen_gamma(1.0, 0.0, 0.5, **wasted, draft=(100, 100)) == 0


def test_time_saved_may_be_risked():
    saved = {"committed": 2, "draft_length": 2, "target": (1, 5)}
    late = {**saved, "target": (2, 5)}
    assert chosen_gamma(1.0, 0.0, 0.0, **saved) > chosen_gamma(1.0, 0.0, 0.0, **late) == 0


def test_scales_that_the_draft_has_not_read_count():
    """At full acceptance a draft pays, unless it must first read a long prefix."""
    cost = CostModel(draft=ForwardCost(1.0, 0.0), target=ForwardCost(1.2, 0.0))
    read, unread = (
        CHOICES[int(choice(spent_so_far(2, known, target=(2, 5)), 1.0, 1.0, 0.0, cost=cost))]
        for known in (2, 0)
    )
    assert read > unread == 0


def test_adaptive_windows_shrink_as_the_batch_grows():
    chosen = [chosen_gamma(0.9, 0.9, at_stake=(batch,) * SCALES) for batch in (1, 2, 8, 16)]
    assert chosen == sorted(chosen, reverse=True)
    assert (chosen[0], chosen[-1]) == (3, 0)


def test_a_draft_that_always_passes_pays_in_any_batch():
    assert chosen_gamma(1.0, 1.0, at_stake=(64,) * SCALES) == 3


def test_samples_that_have_committed_a_scale_do_not_count_there():
    far, near = (SCALES,) * 15, (0,) * 15
    assert chosen_gamma(0.9, 0.9, at_stake=at_stake_of((0, *far))) == chosen_gamma(0.9, 0.9) == 3
    assert chosen_gamma(0.9, 0.9, at_stake=at_stake_of((0, *near))) == 0


def worth_over_outcomes(checked, progress, acceptance):
    """Target seconds of the scales that a window adds for all samples, the long way.

    The mean over all patterns of samples' drafts passing and failing.
    """
    window, total = checked.window, 0.0
    for passes in itertools.product((True, False), repeat=len(progress) * checked.drafted):
        by_sample = np.reshape(passes, (len(progress), checked.drafted))
        reached = []
        for made, passed in zip(progress, by_sample, strict=True):
            rejected = [
                scale
                for scale, ok in zip(range(window.start, checked.drafted_stop), passed, strict=True)
                if not ok and scale >= made
            ]
            reached.append(max(made, rejected[0] + 1 if rejected else window.stop))
        added = range(window.start, min(*reached, window.stop))
        chance = np.prod([acceptance if ok else 1 - acceptance for ok in passes])
        total += chance * sum(COST.target.seconds(PYRAMID.lengths[scale]) for scale in added)
    return total


@pytest.mark.parametrize("acceptance", [0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize(
    "progress",
    [(0,), (2,), (0, 0), (0, 0, 0), (0, 1, 3), (1, 1), (1, 2, 4), (2, 2, 2, 2), (0, 4, 4)],
)
def test_the_choice_makes_most_of_its_time_in_the_mean_over_all_outcomes(progress, acceptance):
    start = min(progress)

    def speedup(checked):
        seconds = COST.target.seconds(
            sum(PYRAMID.lengths[checked.window.start : checked.window.stop])
        ) + sum(map(COST.draft.seconds, PYRAMID.lengths[start : checked.drafted_stop]))
        return worth_over_outcomes(checked, progress, acceptance) / seconds

    chosen = choice(
        spent_so_far(start, start),
        acceptance,
        acceptance,
        1e6,
        at_stake=at_stake_of(progress),
    )
    best = max(speedup(PLAN.at(start, index)) for index in range(len(CHOICES)))
    assert speedup(PLAN.at(start, int(chosen))) == pytest.approx(best)


@settings(deadline=None)
@given(
    at_stake=st.lists(st.integers(0, 9), min_size=SCALES, max_size=SCALES),
    more=st.lists(st.integers(0, 9), min_size=SCALES, max_size=SCALES),
    start=st.integers(0, SCALES - 1),
    percent=st.integers(0, 100),
)
def test_more_at_stake_never_makes_a_window_longer(at_stake, more, start, percent):
    """Every scale of a window is worth less then, the later ones by more."""
    fewer_stop, more_stop = (
        PLAN.at(
            start,
            int(
                choice(
                    spent_so_far(start, start),
                    percent / 100,
                    percent / 100,
                    1e6,
                    at_stake=tuple(samples),
                )
            ),
        ).window.stop
        for samples in (at_stake, np.add(at_stake, more))
    )
    assert more_stop <= fewer_stop


positive_cost = st.builds(ForwardCost, st.floats(0.01, 5.0), st.floats(0.0001, 0.1))


@settings(deadline=None, max_examples=25)
@given(draft=positive_cost, target=positive_cost, overhead=st.sampled_from([0.0, 0.05, 0.1, 0.5]))
def test_a_draft_that_never_passes_costs_the_allowance_at_the_most(draft, target, overhead):
    cost = CostModel(draft, target)
    committed = draft_length = draft_calls = draft_tokens = target_tokens = 0
    judged = 0
    while committed < SCALES:
        state = spent_so_far(
            committed, draft_length, (draft_calls, draft_tokens), (committed, target_tokens)
        )
        estimates = acceptance_estimates(0.0, judged)
        checked = PLAN.at(committed, int(choice(state, *estimates, overhead, cost=cost)))
        if checked.drafted:
            # Every scale for itself, which costs more than two at a time.
            draft_calls += checked.drafted_stop - draft_length
            draft_tokens += PYRAMID.offsets[checked.drafted_stop] - PYRAMID.offsets[draft_length]
            draft_length = committed + 1
            judged += 1
        target_tokens += PYRAMID.offsets[checked.window.stop] - PYRAMID.offsets[committed]
        committed += 1
    alone = sum(map(target.seconds, PYRAMID.lengths))
    end = spent_so_far(SCALES, 0, (draft_calls, draft_tokens), (SCALES, target_tokens))
    assert float(end.lost(cost, PYRAMID)) <= (overhead + 1e-3) * alone
