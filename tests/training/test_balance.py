"""No kind of picture drowns the others."""

import numpy as np
import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.training.balance import sampling_weights

# Class 0: a hand in four skin tones and a nose; class 1: a cat and a dog; class 2: a flag.
LABELS = np.array([0, 0, 0, 0, 0, 1, 1, 2])
GLYPHS = ("hand", "hand", "hand", "hand", "nose", "cat", "dog", "flag")


def test_without_balance_all_pictures_weigh_the_same():
    np.testing.assert_array_equal(sampling_weights(LABELS, GLYPHS, "none"), np.ones(8))


def test_by_glyph_variants_share_the_weight_of_one():
    weights = sampling_weights(LABELS, GLYPHS, "glyph")
    np.testing.assert_allclose(weights[:4].sum(), weights[4])
    np.testing.assert_allclose(weights[4], weights[7])
    np.testing.assert_allclose(weights.mean(), 1.0)


def test_by_class_all_classes_weigh_the_same_and_glyphs_within_them():
    weights = sampling_weights(LABELS, GLYPHS, "class")
    np.testing.assert_allclose(np.bincount(LABELS, weights=weights), 8 / 3)
    np.testing.assert_allclose(weights[:4].sum(), weights[4])


def test_class_power_lies_between_glyph_and_class():
    def rare(power):
        return sampling_weights(LABELS, GLYPHS, "class", power)[7]

    assert rare(0.0) == pytest.approx(sampling_weights(LABELS, GLYPHS, "glyph")[7])
    assert rare(0.0) < rare(0.5) < rare(1.0)


def test_the_same_glyph_in_another_class_is_another_kind():
    weights = sampling_weights(np.array([0, 1, 1]), ("hand", "hand", "cat"), "glyph")
    np.testing.assert_allclose(weights, 1.0)


def test_sets_without_glyphs_can_be_balanced_by_class_only():
    np.testing.assert_allclose(
        np.bincount(LABELS, weights=sampling_weights(LABELS, None, "class")), 8 / 3
    )
    with pytest.raises(SdvarError, match="does not say what its pictures show"):
        sampling_weights(LABELS, None, "glyph")
    with pytest.raises(SdvarError, match="unknown balance"):
        sampling_weights(LABELS, GLYPHS, "style")
