"""Boxes, masks and seams."""

import numpy as np
import pytest

from sdvar_jax.editing import Box, composite, mask_of_image, softened
from sdvar_jax.errors import SdvarError


def test_a_box_is_read_in_pixels_and_per_cent():
    assert Box.parse("2, 3,10,8", 16) == Box(2, 3, 10, 8)
    assert Box.parse("25%,0%,75%,50%", 16) == Box(4, 0, 12, 8)
    assert Box.parse("0,25%,8,16", 16) == Box(0, 4, 8, 16)


def test_the_mask_of_a_box_is_true_inside():
    mask = Box(1, 2, 4, 3).mask(5)
    assert mask.sum() == 3
    assert mask[2, 1:4].all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2,3", "four numbers"),
        ("1,2,3,4,5", "four numbers"),
        ("", "neither whole pixels nor a percentage"),
        ("1,2,x,4", "'x' in the box"),
        ("1.5,2,3,4", "'1.5' in the box"),
        ("inf%,0,4,4", "neither whole pixels"),
        ("4,0,4,8", "left < right"),
        ("0,8,4,4", "top < bottom"),
        ("-1,0,4,4", "a box is left"),
        ("0,0,17,4", "reaches outside the image of 16x16"),
        ("0,0,4,110%", "reaches outside"),
    ],
)
def test_what_is_no_box_in_the_image_is_refused(text, message):
    with pytest.raises(SdvarError, match=message):
        Box.parse(text, 16)


def test_the_white_parts_of_a_picture_are_a_mask():
    picture = np.zeros((4, 4, 3), np.float32)
    picture[0] = 1.0
    picture[1] = 0.4
    np.testing.assert_array_equal(mask_of_image(picture).sum(axis=1), [4, 0, 0, 0])


def test_a_hard_edge_is_the_mask_itself():
    mask = Box(1, 1, 3, 3).mask(5)
    np.testing.assert_array_equal(softened(mask, 0), mask)


def test_a_soft_seam_lies_inside_the_mask():
    mask = Box(2, 0, 8, 8).mask(10)
    weights = softened(mask, 2)
    assert (weights[~mask] == 0).all()
    np.testing.assert_allclose(weights[4, 2:8], [1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3])
    # The image's border is no seam.
    np.testing.assert_allclose(weights[0, 2:8], weights[4, 2:8])


def test_a_composite_keeps_the_originals_pixels_outside():
    random = np.random.default_rng(0)
    original, edited = random.random((6, 6, 3)), random.random((2, 6, 6, 3))
    mask = Box(0, 0, 3, 3).mask(6)
    joined = composite(original, edited, mask, feather=1)
    np.testing.assert_allclose(joined[:, ~mask], np.stack([original[~mask]] * 2), rtol=1e-6)
    np.testing.assert_allclose(joined[:, 0, 0], edited[:, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(
        joined[:, 2, 2], (original[2, 2][None] + edited[:, 2, 2]) / 2, rtol=1e-6
    )


def test_a_negative_feather_is_refused():
    with pytest.raises(SdvarError, match="feather must not be negative"):
        softened(Box(0, 0, 1, 1).mask(4), -1)
