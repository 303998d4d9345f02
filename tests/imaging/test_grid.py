"""Labelled grids: every pixel of every image is there, in order, with its caption beneath."""

import numpy as np
import pytest

from sdvar_jax.imaging.files import to_uint8
from sdvar_jax.imaging.grid import default_columns, image_grid
from sdvar_jax.imaging.tiles import enlarged, lay_out


def noise(batch, side=128):
    return np.random.default_rng(0).uniform(size=(batch, side, side, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("batch", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (7, 3), (8, 4), (10, 5)]
)
def test_default_columns_leave_no_gap_where_that_is_possible(batch, columns):
    assert default_columns(batch) == columns


@pytest.mark.parametrize("columns", [None, 1, 2, 50])
def test_every_image_is_in_the_grid_pixel_by_pixel_row_by_row(columns):
    images = noise(5)
    captions = [f"caption {index}" for index in range(5)]
    used = {None: 3, 50: 5}.get(columns, columns)
    layout, _ = lay_out(enlarged(images), captions, used)
    sheet = np.asarray(image_grid(images, captions, columns=columns))
    assert sheet.shape[:2] == layout.sheet_size[::-1]
    corners = [layout.corner(index) for index in range(5)]
    assert [(top, left) for left, top in corners] == sorted((top, left) for left, top in corners)
    for image, (left, top) in zip(images, corners, strict=True):
        assert np.array_equal(sheet[top : top + 128, left : left + 128], to_uint8(image))


def test_captions_are_drawn_under_their_own_image():
    images = np.ones((2, 128, 128, 3), np.float32)
    left, right = (slice(None, 140), slice(140, None))
    sheet = np.asarray(image_grid(images, ["", "words"]))
    assert sheet[128:, left].min() == 255
    assert sheet[140:, right].min() < 100


def test_without_captions_no_room_is_left_for_them():
    images = noise(2)
    bare, captioned = image_grid(images), image_grid(images, ["a", "b"])
    assert bare.height < captioned.height
    assert bare.width == captioned.width


def test_long_captions_stay_within_two_lines_whatever_their_length():
    images = noise(1)
    two_lines = image_grid(images, ["word " * 10])
    assert image_grid(images, ["word " * 100]).size == two_lines.size


def test_small_images_are_enlarged_by_a_whole_factor():
    images = noise(1, side=50)
    assert np.array_equal(enlarged(images)[0, ::2, 1::2], to_uint8(images)[0])


def test_a_grid_needs_an_image_and_a_caption_for_each():
    with pytest.raises(ValueError, match="at least one image"):
        image_grid(noise(0))
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        image_grid(noise(2), ["a"])
    with pytest.raises(AssertionError):
        image_grid(noise(2)[0])
