"""Placing an image in a larger or shifted frame, for out-painting."""

from __future__ import annotations

import dataclasses

import chex
import numpy as np
from PIL import Image

from sdvar_jax.config.validation import require

_LARGEST_ZOOM = 8.0


@dataclasses.dataclass(frozen=True)
class Frame:
    """An image placed in a frame of the model's size.

    Attributes:
      image: the frame, what lies outside the placed image continued from its border, float32
        [side, side, 3] in [0, 1].
      mask: True outside the placed image, bool [side, side].
    """

    image: np.ndarray
    mask: np.ndarray


def place_in_frame(
    image: chex.ArrayNumpy, zoom: float = 1.0, shift: tuple[float, float] = (0.0, 0.0)
) -> Frame:
    """Places an image in a frame that shows more than it.

    Args:
      image: [side, side, 3] in [0, 1].
      zoom: side of the frame in units of the image's, at least 1: the image is scaled down by it.
      shift: how far the image's centre lies to the right of and below the frame's, as shares of
        the frame; what leaves the frame is lost.

    Returns:
      The frame, at the image's size.

    Raises:
      SdvarError: the zoom is out of range, nothing of the image is left, or nothing is added.
    """
    chex.assert_shape(image, (None, None, 3))
    side = image.shape[0]
    require(
        1.0 <= zoom <= _LARGEST_ZOOM,
        f"zoom must lie in 1..{_LARGEST_ZOOM:g} (1 keeps the size), got {zoom:g}",
    )
    require(all(np.isfinite(share) for share in shift), f"shift must be two numbers, got {shift}")
    small = max(1, round(side / zoom))
    left, top = (round((side - small) / 2 + share * side) for share in shift)
    placed = _resized(image, small)
    columns, rows = (np.arange(side) - first for first in (left, top))
    inside_columns, inside_rows = ((at >= 0) & (at < small) for at in (columns, rows))
    inside = inside_rows[:, None] & inside_columns[None]
    require(bool(inside.any()), f"shift {shift} moves the whole image out of the frame")
    require(
        not inside.all(), "the frame shows nothing but the image; give a zoom above 1 or a shift"
    )
    # The border is continued outward, so that the encoder sees no edge that is not there.
    continued = placed[np.clip(rows, 0, small - 1)][:, np.clip(columns, 0, small - 1)]
    return Frame(image=continued.astype(np.float32), mask=~inside)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    """An image at another side, float32, each channel on its own so that no byte rounds it."""
    if image.shape[0] == side:
        return np.asarray(image, np.float32)
    channels = [
        Image.fromarray(np.asarray(image[..., channel], np.float32)).resize(
            (side, side), Image.Resampling.LANCZOS
        )
        for channel in range(3)
    ]
    return np.clip(np.stack([np.asarray(channel) for channel in channels], axis=-1), 0.0, 1.0)
