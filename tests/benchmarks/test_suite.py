"""The suite's requests."""

import numpy as np
import pytest

from benchmarks.budget import Budget
from benchmarks.cases import Choices
from benchmarks.random_models import TINY
from benchmarks.results import Results
from benchmarks.sample import Suite, _choices, build_parser
from sdvar_jax.decoding import TargetOnly


@pytest.fixture(scope="module")
def suite():
    options = build_parser().parse_args(["--target", "tiny", "--dtype", "float32", "--seed", "5"])
    return Suite(("tiny", None), options, Results({}, quiet=True), Budget(None))


def test_draws_have_seeds_of_their_own_and_share_all_else(suite):
    first, second = (suite.request(4, 0.5, draw) for draw in (0, 1))
    assert (int(first.seed), int(second.seed)) == (5, 6)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert float(first.threshold) == 0.5


def test_labels_are_random_classes(suite):
    labels = np.asarray(suite.request(64).labels)
    assert len(np.unique(labels)) > 1
    assert labels.max() < TINY.num_classes


def test_adaptive_windows_are_asked_for_as_the_options_say():
    given = ["--adaptive-gammas", "0", "4", "--adaptive-overhead", "0.3"]
    choices = _choices(build_parser().parse_args(given))
    assert (choices.adaptive_gammas, choices.adaptive_overhead) == ((0, 4), 0.3)
    assert _choices(build_parser().parse_args([])) == Choices()


def test_tokens_and_images_are_phases_of_their_own():
    options = build_parser().parse_args(
        ["--target", "tiny", "--dtype", "float32", "--repeats", "1", "--only", "phases"]
    )
    results = Results({}, quiet=True)
    Suite(("tiny", None), options, results, Budget(None)).measure_phases(2)
    phases = {record["phase"]: record for record in results.of_kind("phase")}
    for name in ("tokens", "images"):
        assert phases[name]["batch"] == 2
        assert phases[name]["seconds"] > 0
        assert phases[name]["program_bytes"] > 0
    assert len(phases) > 2


def test_what_is_compiled_ahead_is_what_is_measured_and_tells_no_compile_time():
    options = build_parser().parse_args(
        ["--target", "tiny", "--dtype", "float32", "--repeats", "1", "--only", "target"]
    )
    results = Results({}, quiet=True)
    suite = Suite(("tiny", None), options, results, Budget(None))
    choices = Choices(groups=("target",))
    suite.compile_ahead(2, {1: choices})
    program = suite._ahead.get((TargetOnly(), 1))
    suite.run(choices, 1, None)
    (record,) = results.of_kind("decoder")
    assert record["case"] == "target"
    assert record["program_bytes"] == program.memory_bytes > 0
    assert "compile_seconds" not in record
