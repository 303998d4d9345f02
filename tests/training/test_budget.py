"""When a run ends."""

import pytest

from sdvar_jax.training import RunConfig
from sdvar_jax.training import budget as module
from sdvar_jax.training.budget import make_budget


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def run(budget, clock, seconds, dispatch=10):
    """Runs to the end, each dispatch taking the next of ``seconds``; returns the steps made."""
    step, totals = 0, []
    while (total := budget.total(step, dispatch)) > step:
        spent = seconds(step)
        clock.now += spent
        step += dispatch
        budget.dispatched(dispatch, spent)
        totals.append(total)
    return step, totals


def test_a_number_of_steps_is_that_number(clock):
    budget = make_budget(RunConfig(steps=50), clock.now)
    step, totals = run(budget, clock, lambda step: 1.0)
    assert step == 50
    assert set(totals) == {50}


def test_minutes_end_before_the_deadline_and_use_it_up(clock):
    config = RunConfig(minutes=2.0, reserve_seconds=20.0)
    begin = clock.now
    step, _ = run(make_budget(config, begin), clock, lambda step: 2.0)
    assert 95.0 <= clock.now - begin <= 100.0
    assert step == 10 * round((clock.now - begin) / 2.0)


def test_the_total_is_known_early_and_reached(clock):
    step, totals = run(
        make_budget(RunConfig(minutes=2.0, reserve_seconds=0.0), clock.now), clock, lambda step: 1.0
    )
    assert all(total == pytest.approx(step, rel=0.05) for total in totals[1:])


def test_a_machine_that_slows_down_still_ends_in_time(clock):
    begin = clock.now
    config = RunConfig(minutes=2.0, reserve_seconds=0.0)
    run(make_budget(config, begin), clock, lambda step: 1.0 if step < 300 else 2.0)
    assert 112.0 <= clock.now - begin <= 120.0


def test_time_spent_before_the_first_step_counts(clock):
    budget = make_budget(RunConfig(minutes=1.0, reserve_seconds=5.0), clock.now - 58.0)
    assert budget.total(0, 10) == 0
