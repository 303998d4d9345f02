"""Which tokens an edit keeps."""

import numpy as np
import pytest

from sdvar_jax.config import PYRAMID_256, ScalePyramid
from sdvar_jax.editing.cells import cell_weights, kept_tokens, masked_share
from sdvar_jax.errors import SdvarError

PYRAMID = ScalePyramid((1, 2, 4))


def corner(side, size):
    mask = np.zeros((side, side), bool)
    mask[:size, :size] = True
    return mask


def test_every_cell_weighs_one_and_every_pixel_counts_alike():
    weights = cell_weights(5, 16)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    np.testing.assert_allclose(weights.sum(axis=0), 5 / 16)


def test_the_masked_share_of_a_cell_counts_parts_of_pixels():
    # A side of 3 cells over 8 pixels: the first cell ends within the third pixel.
    share = masked_share(corner(8, 3), 3)
    np.testing.assert_allclose(share[0, 0], 1)
    np.testing.assert_allclose(share[0, 1], (3 - 8 / 3) / (8 / 3))
    np.testing.assert_allclose(share[2], 0, atol=1e-12)


def test_tokens_are_kept_whose_cell_lies_wholly_outside():
    kept = kept_tokens(corner(8, 4), PYRAMID)
    first, second, third = np.split(kept, PYRAMID.offsets[1:-1])
    assert not first.any()
    np.testing.assert_array_equal(second.reshape(2, 2), [[False, True], [True, True]])
    wanted = np.ones((4, 4), bool)
    wanted[:2, :2] = False
    np.testing.assert_array_equal(third.reshape(4, 4), wanted)


def test_one_masked_pixel_frees_its_cell_at_every_scale():
    mask = np.zeros((256, 256), bool)
    mask[200, 100] = True
    kept = kept_tokens(mask, PYRAMID_256)
    free = [(~each).sum() for each in np.split(kept, PYRAMID_256.offsets[1:-1])]
    assert free == [1] * PYRAMID_256.num_scales


@pytest.mark.parametrize(("tolerance", "kept"), [(0.24, False), (0.25, True), (0.5, True)])
def test_the_tolerance_keeps_cells_that_are_partly_masked(tolerance, kept):
    assert kept_tokens(corner(8, 4), PYRAMID, tolerance)[0] == kept


@pytest.mark.parametrize(
    ("mask", "tolerance", "message"),
    [
        (np.zeros((8, 8), bool), 0.0, "is empty"),
        (np.ones((8, 8), bool), 0.0, "nothing of the image would be kept"),
        (corner(8, 2), 1.0, "tolerance must be 0 up to"),
        (corner(8, 2), -0.1, "tolerance must be 0 up to"),
    ],
)
def test_masks_and_tolerances_that_make_no_edit_are_refused(mask, tolerance, message):
    with pytest.raises(SdvarError, match=message):
        kept_tokens(mask, PYRAMID, tolerance)
