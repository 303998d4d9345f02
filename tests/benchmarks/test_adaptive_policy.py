"""The policy of adaptive windows, priced without running a model."""

import dataclasses
import json

import numpy as np
import pytest

from benchmarks.adaptive_policy import Policy, main
from sdvar_jax.config import PYRAMID_256
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.speculative.cost_model import DEFAULT_COST
from sdvar_jax.errors import SdvarError

ADAPTIVE = Speculative(gamma="adaptive")
ALL, NONE = np.ones((1, 10), bool), np.zeros((1, 10), bool)


@pytest.fixture(scope="module")
def policy():
    return Policy(ADAPTIVE, PYRAMID_256, DEFAULT_COST)


def test_a_draft_that_never_passes_costs_a_tenth_at_the_most(policy):
    seconds, windows = policy.seconds(NONE)
    assert policy.alone < seconds <= 1.1 * policy.alone
    assert len(windows) == 10


def test_a_draft_known_never_to_pass_is_not_asked(policy):
    seconds, windows = policy.seconds(NONE, 0.0, 1000.0)
    assert seconds == pytest.approx(policy.alone, rel=1e-5)
    assert not any(checked.drafted for checked in windows)


def test_a_draft_that_always_passes_pays(policy):
    seconds, windows = policy.seconds(ALL)
    assert seconds < policy.alone / 1.2
    assert len(windows) < 5


def test_a_window_that_risks_more_than_the_allowance_is_not_tried():
    large = dataclasses.replace(ADAPTIVE, adaptive_gammas=(0, 9))
    free = dataclasses.replace(large, adaptive_overhead=10.0)
    bound, unbound = (Policy(decoder, PYRAMID_256, DEFAULT_COST) for decoder in (large, free))
    assert unbound.seconds(NONE)[0] > 1.1 * unbound.alone
    assert bound.seconds(NONE)[0] == pytest.approx(bound.alone, rel=1e-5)
    # Once it is known to pass, it is taken.
    assert any(checked.drafted > 2 for checked in bound.seconds(ALL, 1000.0, 1000.0)[1])


def test_the_slowest_picture_of_a_batch_decides(policy):
    mixed = np.concatenate([ALL, NONE])
    _, windows = policy.seconds(mixed)
    assert len(windows) == 10
    alone, together = (policy.seconds(each)[0] for each in (ALL, np.concatenate([ALL, ALL])))
    assert policy.seconds(mixed)[0] > alone
    assert together < policy.alone


def test_a_batch_does_not_lose_more_than_one_picture_may(policy):
    """Half of all drafts pass: one picture may try, of eight one always fails."""
    passes = np.random.default_rng(0).random((200, 8, 10)) < 0.5
    mean = np.mean([policy.seconds(batch, 500.0, 1000.0)[0] for batch in passes])
    assert mean <= 1.1 * policy.alone


def test_the_table_has_a_row_an_acceptance(capsys):
    main(["--acceptance", "0", "1", "--draws", "3"])
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2].startswith("| 1 | 0% | 0.9")
    assert lines[-1].startswith("| 1 | 100% | 1.")


def test_a_file_of_costs_without_the_pair_is_refused(tmp_path):
    file = tmp_path / "windows.json"
    numbers = dict.fromkeys(
        ("draft_fixed", "draft_per_token", "target_fixed", "target_per_token"), 1.0
    )
    pair = {"kind": "cost", "target": "tiny", "draft": "tiny", "batch": 1}
    file.write_text(json.dumps({"records": [{**pair, **numbers}]}))
    with pytest.raises(SdvarError, match=r"no costs of d30 with d16 at batch 1; it has .*tiny"):
        main(["--cost", str(file)])


def test_a_file_of_costs_that_is_not_there_is_refused(tmp_path):
    missing = tmp_path / "windows.json"
    with pytest.raises(SdvarError, match="cannot be read as costs"):
        main(["--cost", str(missing)])
