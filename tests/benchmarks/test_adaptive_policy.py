"""The policy of adaptive windows, priced without running a model."""

import dataclasses
import json

import numpy as np
import pytest
from decoding_models import FREE_TURNS

from benchmarks.adaptive_policy import Policy, main
from sdvar_jax.config import PYRAMID_256
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.speculative.cost_model import DEFAULT_COST
from sdvar_jax.errors import SdvarError

ADAPTIVE = Speculative(gamma="adaptive")
ALL, NONE = np.ones((1, 10), bool), np.zeros((1, 10), bool)


def failing_at(*scales):
    """One sample a scale, whose draft passes but there."""
    return np.arange(10) != np.asarray(scales)[:, None]


@pytest.fixture(scope="module")
def policy():
    return Policy(ADAPTIVE, PYRAMID_256, FREE_TURNS)


@pytest.fixture(scope="module")
def turning():
    return Policy(ADAPTIVE, PYRAMID_256, DEFAULT_COST)


@pytest.mark.parametrize("cost", [DEFAULT_COST, FREE_TURNS], ids=["turns cost", "turns are free"])
def test_a_draft_that_never_passes_costs_a_tenth_at_the_most(cost):
    policy = Policy(ADAPTIVE, PYRAMID_256, cost)
    seconds, windows = policy.seconds(NONE)
    assert policy.alone < seconds <= 1.1 * policy.alone
    assert len(windows) == 10


@pytest.mark.parametrize("passes", [ALL, NONE], ids=["all", "none"])
def test_where_turns_cost_an_unknown_draft_is_judged_behind_the_target(turning, passes):
    seconds, windows = turning.seconds(passes)
    assert [checked.window.start for checked in windows] == list(range(10))
    assert not any(checked.drafted for checked in windows)
    trial = DEFAULT_COST.draft.seconds(PYRAMID_256.offsets[6])
    assert seconds == pytest.approx(turning.alone + trial)
    assert seconds <= 1.05 * turning.alone


def test_where_turns_cost_a_draft_that_passes_nearly_always_pays_once_that_is_known(turning):
    for share, drafted in ((0.9, False), (0.999, True)):
        seconds, windows = turning.seconds(ALL, 1000.0 * share, 1000.0)
        assert any(checked.drafted for checked in windows) == drafted
        assert (seconds < turning.alone / 1.15) == drafted


def test_a_draft_known_never_to_pass_is_not_asked(policy):
    seconds, windows = policy.seconds(NONE, 0.0, 1000.0)
    assert seconds == pytest.approx(policy.alone, rel=1e-5)
    assert not any(checked.drafted for checked in windows)


def test_a_draft_that_always_passes_pays(policy):
    seconds, windows = policy.seconds(ALL)
    assert seconds < policy.alone / 1.1
    assert len(windows) < 5


def test_a_window_that_risks_more_than_the_allowance_is_not_tried():
    large = dataclasses.replace(ADAPTIVE, adaptive_gammas=(0, 9))
    free = dataclasses.replace(large, adaptive_overhead=10.0)
    bound, unbound = (Policy(decoder, PYRAMID_256, FREE_TURNS) for decoder in (large, free))
    assert unbound.seconds(NONE)[0] > 1.1 * unbound.alone
    # A window of nine drafts is too much; one forward of the draft behind the target is not.
    seconds, windows = bound.seconds(NONE)
    assert bound.alone < seconds <= 1.1 * bound.alone
    assert not any(checked.drafted for checked in windows)
    # Once it is known to pass, it is taken.
    assert any(checked.drafted > 2 for checked in bound.seconds(ALL, 1000.0, 1000.0)[1])


def test_a_batch_that_always_passes_takes_as_long_as_one_picture(policy):
    assert policy.seconds(np.repeat(ALL, 8, axis=0)) == policy.seconds(ALL)


def test_one_sample_that_never_passes_holds_up_its_batch(policy):
    """The acceptance is that of all samples together, so the batch goes on trying."""
    seconds, windows = policy.seconds(np.concatenate([np.repeat(ALL, 7, axis=0), NONE]))
    assert seconds > policy.seconds(NONE)[0] > policy.alone
    assert len(windows) == 10


def test_a_draft_that_pays_for_one_picture_is_not_asked_for_a_batch(policy):
    """Three of four drafted scales passed so far."""
    known = 750.0, 1000.0
    assert any(checked.drafted for checked in policy.seconds(ALL, *known)[1])
    batch = np.repeat(ALL, 8, axis=0)
    assert not any(checked.drafted for checked in policy.seconds(batch, *known)[1])


@pytest.mark.parametrize("progress", ["minimum", "per-sample"])
@pytest.mark.parametrize("chance", [0.5, 0.75, 0.9])
@pytest.mark.parametrize("cost", [DEFAULT_COST, FREE_TURNS], ids=["turns cost", "turns are free"])
def test_a_batch_loses_a_tenth_at_the_most_in_the_mean(chance, progress, cost):
    policy = Policy(dataclasses.replace(ADAPTIVE, progress=progress), PYRAMID_256, cost)
    passes = np.random.default_rng(0).random((50, 8, 10)) < chance
    mean = np.mean([policy.seconds(batch)[0] for batch in passes])
    assert mean <= 1.1 * policy.alone


def test_samples_keep_what_they_got_beyond_the_slowest_unless_progress_is_the_minimum():
    decoder = dataclasses.replace(ADAPTIVE, adaptive_gammas=(9,))
    windows = {
        progress: [
            checked.window.start
            for checked in Policy(
                dataclasses.replace(decoder, progress=progress), PYRAMID_256, DEFAULT_COST
            ).seconds(failing_at(1, 5))[1]
        ]
        for progress in ("minimum", "per-sample")
    }
    # The second sample's rejection is behind it once the target's own tokens stand there.
    assert windows == {"minimum": [0, 2, 6], "per-sample": [0, 2]}


def test_the_table_has_a_row_a_batch_and_acceptance(capsys):
    main(["--batch", "1", "3", "--acceptance", "0", "1", "--draws", "3"])
    lines = capsys.readouterr().out.strip().splitlines()
    for line, start in zip(
        lines[-4:],
        ("| 1 | 0% | 0.9", "| 1 | 100% | 0.9", "| 3 | 0% | 0.9", "| 3 | 100% | 0.9"),
        strict=True,
    ):
        assert line.startswith(start)
    assert lines[-1].endswith("| 1.16 |")


def test_nothing_is_lost_where_nothing_may_be(capsys):
    main(["--adaptive-overhead", "0", "--acceptance", "0", "--draws", "1"])
    assert capsys.readouterr().out.strip().endswith("| 1 | 0% | 1.00 | 1.00 |")


@pytest.mark.parametrize("batch", [1, 8])
def test_a_file_of_costs_without_the_pair_is_refused(tmp_path, batch):
    file = tmp_path / "windows.json"
    numbers = dict.fromkeys(
        ("draft_fixed", "draft_per_token", "target_fixed", "target_per_token", "turn"), 1.0
    )
    pair = {"kind": "cost", "target": "tiny", "draft": "tiny", "batch": 1}
    file.write_text(json.dumps({"records": [{**pair, **numbers}]}))
    with pytest.raises(
        SdvarError, match=rf"no costs of d30 with d16 at batch {batch}; it has .*tiny"
    ):
        main(["--cost", str(file), "--batch", str(batch)])


def test_a_file_of_costs_that_is_not_there_is_refused(tmp_path):
    missing = tmp_path / "windows.json"
    with pytest.raises(SdvarError, match="cannot be read as costs"):
        main(["--cost", str(missing)])
