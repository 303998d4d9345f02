"""Precision and recall by nearest neighbours: what they must be for sets that are known."""

import numpy as np
import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.precision_recall import Manifold, measure_precision_recall


def cloud(seed, count=200, at=0.0):
    return np.random.default_rng(seed).standard_normal((count, 4)) + at


def both(samples, real, **options):
    precision, recall = measure_precision_recall(Manifold.of(samples), Manifold.of(real), **options)
    return precision.value, recall.value


def test_a_set_is_wholly_like_itself():
    assert both(cloud(0), cloud(0)) == (1.0, 1.0)


def test_pictures_that_are_all_the_same_are_like_themselves():
    same = np.full((10, 4), 0.1)
    assert both(same, same) == (1.0, 1.0)


def test_sets_far_apart_have_nothing_in_common():
    assert both(cloud(0), cloud(1, at=100.0)) == (0.0, 0.0)


def test_samples_of_one_kind_alone_are_precise_and_miss_the_rest():
    real = np.concatenate([cloud(0), cloud(1, at=100.0)])
    precision, recall = both(cloud(2), real)
    assert precision > 0.7
    assert 0.3 < recall <= 0.5


def test_samples_of_a_kind_that_is_not_real_cost_precision_alone():
    samples = np.concatenate([cloud(0), cloud(1, at=100.0)])
    precision, recall = both(samples, cloud(2))
    assert 0.3 < precision <= 0.5
    assert recall > 0.7


def test_precision_and_recall_change_places_with_the_sets():
    first, second = cloud(0), cloud(1, at=0.7)
    assert both(first, second) == both(second, first)[::-1]


def test_real_pictures_count_by_their_weights():
    real = np.concatenate([cloud(0), cloud(1, at=100.0)])
    _, recall = both(cloud(0), real, real_weights=np.repeat([1.0, 0.0], 200))
    assert recall == 1.0


def test_a_radius_is_the_distance_of_the_kth_neighbour():
    line = np.array([[0.0], [1.0], [3.0], [6.0]])
    np.testing.assert_allclose(Manifold.of(line, 1).squared_radii, [1, 1, 4, 9])
    np.testing.assert_allclose(Manifold.of(line, 2).squared_radii, [9, 4, 9, 25])


def test_chunks_change_nothing(monkeypatch):
    from sdvar_jax.evaluation import precision_recall as module

    whole = both(cloud(0), cloud(1, at=0.7))
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert both(cloud(0), cloud(1, at=0.7)) == whole


def test_the_intervals_are_about_as_wide_as_the_figures_of_many_sets_spread():
    real = Manifold.of(cloud(0, 400))
    runs = [measure_precision_recall(Manifold.of(cloud(s, 200, 0.7)), real) for s in range(1, 31)]
    for each in zip(*runs, strict=True):
        spread = np.std([estimate.value for estimate in each])
        assert spread / 3 < np.mean([estimate.deviation for estimate in each]) < 3 * spread


def test_too_few_pictures_are_refused():
    with pytest.raises(SdvarError, match="more than 3"):
        Manifold.of(np.zeros((3, 2)))
