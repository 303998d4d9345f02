"""Frames for out-painting."""

import numpy as np
import pytest

from sdvar_jax.editing import place_in_frame
from sdvar_jax.errors import SdvarError


@pytest.fixture
def image():
    return np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)


def test_a_shifted_image_keeps_its_pixels(image):
    frame = place_in_frame(image, shift=(0.25, -0.5))
    np.testing.assert_array_equal(frame.image[:4, 2:], image[4:, :6])
    np.testing.assert_array_equal(~frame.mask[:4, 2:], True)
    assert frame.mask.sum() == 64 - 24


def test_a_zoomed_out_image_stands_in_the_middle(image):
    frame = place_in_frame(image, zoom=2)
    assert frame.image.dtype == np.float32
    inside = np.zeros((8, 8), bool)
    inside[2:6, 2:6] = True
    np.testing.assert_array_equal(~frame.mask, inside)
    np.testing.assert_allclose(frame.image[inside].mean(), image.mean(), atol=0.05)
    assert 0 <= frame.image.min() <= frame.image.max() <= 1


def test_the_border_is_continued_outward(image):
    frame = place_in_frame(image, shift=(0.5, 0.0))
    np.testing.assert_array_equal(frame.image[:, :4], np.repeat(image[:, :1], 4, axis=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "shows nothing but the image"),
        ({"zoom": 0.5}, r"zoom must lie in 1\.\.8"),
        ({"zoom": float("nan")}, "zoom must lie in"),
        ({"zoom": 9}, "zoom must lie in"),
        ({"shift": (1.0, 0.0)}, "out of the frame"),
        ({"shift": (float("inf"), 0.0)}, "shift must be two numbers"),
    ],
)
def test_frames_that_add_or_keep_nothing_are_refused(image, options, message):
    with pytest.raises(SdvarError, match=message):
        place_in_frame(image, **options)
