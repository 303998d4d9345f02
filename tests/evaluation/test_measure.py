"""Samples against a reference whose classes have other shares."""

import numpy as np
import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.measure import FeatureSet, Reference, class_weights


def pictures(seed, counts):
    """Features around a place of their class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return FeatureSet(random.standard_normal((len(labels), 3)) + 5 * labels[:, None], labels)


def test_under_the_weights_each_class_has_the_share_that_it_has_among_the_samples():
    labels = np.array([0, 0, 0, 0, 1, 2])
    weights = class_weights(labels, np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(np.bincount(labels, weights), [0.25, 0.75, 0])


def test_balanced_samples_are_near_an_unbalanced_set_of_the_same_kind():
    reference = Reference(pictures(0, [3000, 300]))
    samples = pictures(1, [500, 500])
    assert reference.frechet(samples, resamples=2).value < 0.2
    plain = Reference(FeatureSet(reference.pictures.features, np.zeros(3300, int)))
    unweighted = FeatureSet(samples.features, np.zeros(1000, int))
    assert plain.frechet(unweighted, resamples=2).value > 5


def test_quality_holds_every_figure_with_its_interval():
    made = pictures(1, [50, 50])
    wrong = np.where(np.arange(100) < 90, made.labels, 0)
    samples = FeatureSet(made.features, made.labels, wrong)
    quality = Reference(pictures(0, [100, 100])).quality(samples, resamples=5)
    assert quality.samples == 100
    assert quality.accuracy.value == 0.9
    for figure in (quality.frechet, quality.precision, quality.recall, quality.accuracy):
        assert figure.low <= figure.value <= figure.high
    assert quality.to_dict()["precision"]["value"] == quality.precision.value


def test_a_class_without_real_pictures_is_refused():
    with pytest.raises(SdvarError, match=r"classes \[2\]"):
        Reference(pictures(0, [5, 5])).frechet(pictures(0, [5, 5, 5]))
