"""Frechet distance: known distances, its laws, and its interval."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.frechet import (
    GaussianStatistics,
    frechet_distance,
    frechet_estimate,
    resampled_counts,
)


def normal(mean, covariance):
    return GaussianStatistics(np.asarray(mean, float), np.asarray(covariance, float), 100)


def random_normal(random, size=5, rank=None):
    factor = random.standard_normal((size, size if rank is None else rank))
    return normal(random.standard_normal(size), factor @ factor.T)


def test_of_one_dimension_it_is_the_distance_of_means_and_deviations():
    # (1 - 4)^2 + (2 - 5)^2
    assert frechet_distance(normal([1], [[4]]), normal([4], [[25]])) == pytest.approx(18)


def test_of_covariances_that_commute_it_is_the_sum_over_the_axes():
    first, second = normal([0, 0, 0], np.diag([1, 4, 9])), normal([1, 0, 2], np.diag([4, 4, 1]))
    assert frechet_distance(first, second) == pytest.approx(5 + 1 + 0 + 4)


def test_of_covariances_that_do_not_commute_it_is_the_closed_form_of_two_dimensions():
    first, second = normal([0, 0], [[2, 1], [1, 2]]), normal([0, 0], [[1, 0], [0, 5]])
    # tr sqrt(M) of a 2x2 matrix M is sqrt(tr M + 2 sqrt(det M)).
    product = np.array([[2, 1], [1, 2]]) @ np.array([[1, 0], [0, 5]])
    root_trace = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert frechet_distance(first, second) == pytest.approx(4 + 6 - 2 * root_trace)


@given(seed=st.integers(0, 2**32 - 1), rank=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_it_is_zero_for_equal_ones_symmetric_and_never_negative(seed, rank):
    random = np.random.default_rng(seed)
    first, second = random_normal(random, rank=rank), random_normal(random)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-6 * np.trace(first.covariance))
    there, back = frechet_distance(first, second), frechet_distance(second, first)
    assert there >= 0
    assert there == pytest.approx(back, rel=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_rotating_and_moving_both_changes_nothing(seed):
    random = np.random.default_rng(seed)
    first, second = random_normal(random), random_normal(random)
    turn, _ = np.linalg.qr(random.standard_normal((5, 5)))
    shift = random.standard_normal(5)
    moved = [normal(turn @ g.mean + shift, turn @ g.covariance @ turn.T) for g in (first, second)]
    assert frechet_distance(*moved) == pytest.approx(frechet_distance(first, second), rel=1e-6)


def test_statistics_are_those_of_numpy():
    x = np.random.default_rng(0).standard_normal((20, 4))
    found = GaussianStatistics.of(x)
    np.testing.assert_allclose(found.mean, x.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(x.T), rtol=1e-12)


def test_weights_of_zero_leave_pictures_out():
    x = np.random.default_rng(0).standard_normal((20, 4))
    weights = np.r_[np.full(15, 3.0), np.zeros(5)]
    found, wanted = GaussianStatistics.of(x, weights), GaussianStatistics.of(x[:15])
    np.testing.assert_allclose(found.mean, wanted.mean)
    np.testing.assert_allclose(found.covariance, wanted.covariance)


def test_more_samples_of_the_same_source_come_closer():
    random = np.random.default_rng(0)
    reference = normal(np.zeros(8), np.eye(8))
    few, many = (
        frechet_distance(GaussianStatistics.of(random.standard_normal((n, 8))), reference)
        for n in (50, 5000)
    )
    assert many < few / 10


def test_the_interval_is_about_as_wide_as_the_distances_of_many_sets_spread():
    random = np.random.default_rng(0)
    reference = normal(np.zeros(4), np.eye(4))
    values = [
        frechet_distance(GaussianStatistics.of(random.standard_normal((400, 4)) + 0.5), reference)
        for _ in range(60)
    ]
    found = frechet_estimate(random.standard_normal((400, 4)) + 0.5, reference, resamples=60)
    assert found.low < found.value < found.high
    assert np.std(values) / 2 < found.deviation < 2 * np.std(values)
    assert found.low < np.mean(values) < found.high


def test_the_same_seed_gives_the_same_interval():
    x = np.random.default_rng(0).standard_normal((30, 3))
    reference = normal(np.zeros(3), np.eye(3))
    first, again, other = (
        frechet_estimate(x, reference, resamples=10, seed=seed) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.value == other.value
    assert first.deviation != other.deviation


def test_each_class_is_resampled_by_itself():
    labels = np.array([0] * 5 + [1] * 3 + [4])
    counts = resampled_counts(labels, np.random.default_rng(0))
    assert [counts[labels == label].sum() for label in (0, 1, 4)] == [5, 3, 1]


def test_one_picture_and_features_of_different_lengths_are_refused():
    with pytest.raises(SdvarError, match="two or more"):
        GaussianStatistics.of(np.zeros((1, 3)))
    with pytest.raises(SdvarError, match="cannot be compared"):
        frechet_distance(normal([0], [[1]]), normal([0, 0], np.eye(2)))
