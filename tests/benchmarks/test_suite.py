"""The suite's requests."""

import numpy as np
import pytest

from benchmarks.budget import Budget
from benchmarks.random_models import TINY
from benchmarks.results import Results
from benchmarks.sample import Suite, build_parser


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
