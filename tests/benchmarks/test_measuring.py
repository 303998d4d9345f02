"""Timing, budget, and which windows and cases are measured."""

import statistics

import jax.numpy as jnp
import pytest

from benchmarks.budget import Budget
from benchmarks.cases import GROUPS, Choices, chosen_groups, decoding_cases, needs_draft
from benchmarks.timing import Timing, host_fields, measure, measure_each
from benchmarks.windows import CostModel, ForwardCost, draft_windows, read_costs, target_windows
from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding.window import Window
from sdvar_jax.errors import SdvarError

PYRAMID = ScalePyramid((1, 2, 3, 4, 5, 6, 8, 10, 13, 16))


def test_measures_the_median_after_a_warm_up():
    calls = []
    timing = measure(lambda: calls.append(None), 5, warmup=2)
    assert len(calls) == 7
    assert timing.repeats == 5
    assert timing.low <= timing.seconds <= timing.high


def test_stops_repeating_at_the_limit_but_measures_three_times():
    assert measure(lambda: None, 100, limit=0.0).repeats == 3


def test_a_part_of_a_timing():
    assert Timing.of([1.0, 2.0, 6.0], statistics.median) / 2 == Timing(1.0, 0.5, 3.0, 3)


def test_works_that_differ_are_each_measured_once_and_averaged_behind_a_round_of_all():
    calls = []
    works = [lambda: calls.append(1) or (1, "more"), lambda: calls.append(2) or (2, "more")]
    timing, results = measure_each(works, lambda made: made[0])
    assert calls == [1, 2, 1, 2]
    assert results == [1, 2]
    assert timing.seconds == pytest.approx((timing.low + timing.high) / 2)


def test_a_budget_refuses_what_took_longer_than_is_left():
    budget = Budget(1000.0)
    budget._longest["slow"] = 2000.0
    assert budget.allows("quick")
    assert not budget.allows("slow")
    assert Budget(None).allows("slow")


def test_a_budget_learns_what_things_take():
    budget = Budget(1000.0)
    with budget.spend("case"):
        pass
    assert 0 <= budget._longest["case"] < 1
    assert not Budget(0.0).allows("case")


def test_cases_are_picked_by_name_in_the_suite_s_order():
    assert chosen_groups(None) == GROUPS
    assert chosen_groups(["phases", "target"]) == ("target", "phases")
    assert chosen_groups(["acceptance"]) == ("exact", "until", "adaptive", "acceptance")
    assert chosen_groups(["acceptance", "until"]) == ("until", "acceptance")
    with pytest.raises(SdvarError, match="fastest"):
        chosen_groups(["fastest"])


def test_a_draft_is_made_only_where_one_works():
    assert not needs_draft(("floor", "target", "phases", "forwards"))
    assert needs_draft(("target", "handoff"))


def test_one_program_serves_the_curve():
    choices = Choices(groups=("target", "until", "acceptance"), acceptances=(0.0, 0.5))
    target, until = decoding_cases(choices, PYRAMID.num_scales)
    assert target.acceptances == (None,)
    assert until.acceptances == (1.0, 0.5, 0.0)
    assert until.decoder.check_until == 7


def test_adaptive_windows_choose_and_risk_what_was_asked_for():
    choices = Choices(groups=("adaptive",), adaptive_gammas=(0, 4), adaptive_overhead=0.3)
    (adaptive,) = decoding_cases(choices, PYRAMID.num_scales)
    assert adaptive.learns
    assert (adaptive.decoder.adaptive_gammas, adaptive.decoder.adaptive_overhead) == ((0, 4), 0.3)


def test_every_case_suits_a_small_pyramid():
    for case in decoding_cases(Choices(), 4):
        plan = getattr(case.decoder, "plan", None)
        assert plan is None or plan(ScalePyramid((1, 2, 3, 4))).limit <= 4


def test_windows_reach_from_the_first_scale_and_to_the_last():
    few, every = (target_windows(PYRAMID, e) for e in (False, True))
    assert {Window(0, 6), Window(0, 7), Window(0, 10), Window(6, 10), Window(8, 10)} < set(few)
    assert set(few) < set(every)
    assert len(set(few)) == len(few)
    assert draft_windows(PYRAMID, True) == tuple(Window(s, s + 1) for s in range(10))


def test_costs_are_read_by_pair_and_batch(tmp_path):
    from benchmarks.results import Results

    path = tmp_path / "windows.json"
    Results({}, path, quiet=True).add(
        "cost",
        target="d30",
        draft="d16",
        batch=1,
        draft_fixed=1.0,
        draft_per_token=0.1,
        target_fixed=2.0,
        target_per_token=0.2,
        turn=0.5,
    )
    cost = CostModel(draft=ForwardCost(1.0, 0.1), target=ForwardCost(2.0, 0.2), turn=0.5)
    assert read_costs(path) == {("d30", "d16", 1): cost}


@pytest.mark.parametrize("text", ["", "{}", '{"records": []}', '{"records": [{"kind": "cost"}]}'])
def test_a_file_without_costs_is_told(tmp_path, text):
    path = tmp_path / "windows.json"
    path.write_text(text)
    with pytest.raises(SdvarError, match=r"windows\.json"):
        read_costs(path)


def test_the_hosts_part_of_a_call_is_told():
    calls = []
    fields = host_fields(lambda: calls.append(0) or jnp.zeros(3), repeats=4)
    assert len(calls) == 8
    assert 0 < fields["dispatch_seconds"] < 1
    assert 0 < fields["queued_seconds"] < 1
