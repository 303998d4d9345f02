"""Windows cover the pyramid, end with it, and carry a bonus scale only where there is one."""

import itertools

import pytest

from sdvar_jax.decoding.speculative.windows import check_window, plan_windows
from sdvar_jax.decoding.window import Window
from sdvar_jax.errors import SdvarError

SCALES = 10


@pytest.mark.parametrize(
    ("start", "gamma", "bonus", "stop", "drafted"),
    [
        (0, 3, True, 4, 3),
        (0, 3, False, 3, 3),
        (4, 0, True, 5, 0),
        # At the end the bonus scale takes the place of the last draft.
        (7, 3, True, 10, 2),
        (7, 3, False, 10, 3),
        (8, 5, False, 10, 2),
        # The last scale alone: the target makes it, no draft is needed.
        (9, 3, True, 10, 0),
        (9, 3, False, 10, 1),
    ],
)
def test_a_window_drafts_gamma_scales_and_adds_the_bonus(start, gamma, bonus, stop, drafted):
    checked = check_window(start, gamma, SCALES, bonus)
    assert (checked.window, checked.drafted) == (Window(start, stop), drafted)


def test_every_window_is_drafts_and_at_most_one_bonus_scale_within_the_limit():
    for start, gamma, limit, bonus in itertools.product(
        range(SCALES), range(SCALES + 1), range(1, SCALES + 1), (True, False)
    ):
        if start >= limit:
            continue
        checked = check_window(start, gamma, limit, bonus)
        window = checked.window
        assert window.start == start < window.stop <= limit
        assert 0 <= checked.drafted <= gamma
        assert window.stop - window.start == checked.drafted + checked.has_bonus
        assert checked.drafted_stop == start + checked.drafted


def test_a_plan_lists_the_choices_of_each_start_scale():
    plan = plan_windows(((0, 2), (1, 3), (0, 1)), 3, bonus=False)
    assert len(plan.windows) == 6
    assert [plan.at(start, 1).window for start in range(3)] == [
        Window(0, 2),
        Window(1, 3),
        Window(2, 3),
    ]
    assert plan.at(1, 0).drafted == 1


def test_scales_of_the_target_alone_share_a_turn():
    plan = plan_windows(((0, 2),) * 5, 5, bonus=False)
    turns = [[checked.window.start for checked in plan.turn(start, 0)] for start in range(5)]
    assert turns == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4], [4]]
    assert all(plan.turn(start, 1) == (plan.at(start, 1),) for start in range(5))


def test_a_turn_ends_where_a_schedule_drafts_again():
    plan = plan_windows(((0,), (0,), (2,), (0,), (0,)), 5, bonus=False)
    assert [len(plan.turn(start, 0)) for start in range(5)] == [2, 1, 1, 2, 1]


def test_a_plan_stops_at_its_limit():
    plan = plan_windows(((2,),) * 4, 4, bonus=True)
    assert [checked.window.start for checked in plan.windows] == [0, 1, 2, 3]
    assert max(checked.window.stop for checked in plan.windows) == 4


def test_a_plan_needs_as_many_choices_everywhere():
    with pytest.raises(SdvarError, match="same number of gamma choices"):
        plan_windows(((1, 2), (1,)), 2, bonus=True)
