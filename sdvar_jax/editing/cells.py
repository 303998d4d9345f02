"""Which tokens an edit keeps: those whose cell of the image lies outside the mask."""

from __future__ import annotations

import chex
import numpy as np

from sdvar_jax.config import ScalePyramid
from sdvar_jax.config.validation import require

# Shares of a cell are sums of fractions; this is above their rounding.
_SLACK = 1e-6


def cell_weights(cells: int, pixels: int) -> np.ndarray:
    """How much of each pixel row lies in each cell row, in units of a cell.

    Args:
      cells: side of a token map.
      pixels: side of the image; need not be a multiple of ``cells``.

    Returns:
      float64 [cells, pixels]; each row adds up to 1.
    """
    edges = np.arange(cells + 1) * pixels / cells
    pixel = np.arange(pixels)
    low = np.maximum(edges[:-1, None], pixel[None])
    high = np.minimum(edges[1:, None], pixel[None] + 1)
    return np.maximum(high - low, 0.0) * cells / pixels


def masked_share(mask: np.ndarray, cells: int) -> np.ndarray:
    """Share of each token's cell that is masked.

    Args:
      mask: bool [side, side].
      cells: side of the token map.

    Returns:
      float64 [cells, cells] in [0, 1].
    """
    chex.assert_rank(mask, 2)
    weights = cell_weights(cells, mask.shape[0])
    return weights @ mask.astype(np.float64) @ weights.T


def kept_tokens(mask: np.ndarray, pyramid: ScalePyramid, tolerance: float = 0.0) -> np.ndarray:
    """Which tokens of all scales are kept.

    VAR's zero-shot edits force the image's own tokens outside a mask. A token is kept where at
    most ``tolerance`` of its cell is masked: 0 keeps those wholly outside, so that nothing of the
    masked pixels is carried on; 0.5 keeps what is mostly outside, near the rule of the original's
    demo, and with it more of the coarse scales, which hold the overall colours.

    Args:
      mask: True where the image is made anew, bool [side, side].
      pyramid: the scales.
      tolerance: 0 up to but not including 1.

    Returns:
      bool [total_length].

    Raises:
      SdvarError: the mask is empty or leaves no token to keep, or the tolerance is out of range.
    """
    require(0 <= tolerance < 1, f"tolerance must be 0 up to but not including 1, got {tolerance}")
    require(bool(mask.any()), "the region to be made anew is empty; mark some of the image")
    kept = np.concatenate(
        [masked_share(mask, side).ravel() <= tolerance + _SLACK for side in pyramid.sides]
    )
    require(
        bool(kept.any()),
        "no token lies outside the region to be made anew, so nothing of the image would be kept; "
        "give a smaller region or a larger tolerance",
    )
    return kept
