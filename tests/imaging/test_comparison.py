"""Comparisons: every picture in its row and column, rows named at the left, columns on top."""

import numpy as np
import pytest

from sdvar_jax.imaging import comparison_grid, to_uint8

IMAGES = np.random.default_rng(0).uniform(size=(2, 3, 128, 128, 3)).astype(np.float32)
BLACK = np.zeros((2, 3, 64, 64, 3), np.float32)


def place_of(sheet, image):
    """Top and left of a picture in the sheet."""
    wanted = to_uint8(image)
    corner = (sheet[:-127, :-127] == wanted[0, 0]).all(axis=-1)
    (found,) = [
        (top, left)
        for top, left in np.argwhere(corner)
        if np.array_equal(sheet[top : top + 128, left : left + 128], wanted)
    ]
    return found


def test_every_picture_is_there_pixel_by_pixel_in_its_row_and_column():
    sheet = np.asarray(comparison_grid(IMAGES, ["a", "b"], ["1", "2", "3"]))
    places = np.array([[place_of(sheet, image) for image in row] for row in IMAGES])
    assert (np.diff(places[..., 0], axis=0) >= 128).all()
    assert (np.diff(places[..., 1], axis=1) >= 128).all()
    assert (np.diff(places[..., 0], axis=1) == 0).all()
    assert (np.diff(places[..., 1], axis=0) == 0).all()


def test_labels_stand_at_the_left_of_their_own_row_and_captions_on_top():
    def sheet(labels, captions):
        return np.asarray(comparison_grid(BLACK, labels, captions)).astype(int)

    changed = sheet(["", ""], ["", "", ""]) != sheet(["", "one\ntwo"], ["", "", ""])
    rows, columns = np.nonzero(changed.any(axis=-1))
    assert rows.min() > changed.shape[0] // 2
    assert columns.max() < 180
    changed = sheet(["", ""], ["x", "y", "x"]) != sheet(["", ""], ["x", "y", "y"])
    rows, columns = np.nonzero(changed.any(axis=-1))
    assert rows.max() < 30
    assert columns.min() > changed.shape[1] * 2 // 3


def test_words_must_match_the_pictures():
    with pytest.raises(ValueError, match="1 labels and 3 captions for 2 rows of 3"):
        comparison_grid(IMAGES, ["a"], ["1", "2", "3"])
    with pytest.raises(ValueError, match="at least one image"):
        comparison_grid(IMAGES[:0], [], ["1", "2", "3"])
