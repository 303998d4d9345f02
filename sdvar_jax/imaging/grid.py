"""A labelled grid of images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import chex
from PIL import Image

from sdvar_jax.imaging.tiles import BACKGROUND, draw_tiles, enlarged, lay_out


def image_grid(
    images: chex.ArrayNumpy | chex.Array,
    captions: Sequence[str] | None = None,
    *,
    columns: int | None = None,
) -> Image.Image:
    """Lays images out in rows, each with its caption beneath.

    Args:
      images: float [batch, height, width, 3] in [0, 1], batch >= 1. Images of less than 128 pixels
        are enlarged by a whole factor.
      captions: one an image; long ones are wrapped, then shortened with an ellipsis.
      columns: images in a row; about as many as rows if None.

    Returns:
      The grid as an RGB picture.
    """
    chex.assert_shape(images, (None, None, None, 3))
    batch = images.shape[0]
    captions = [] if captions is None else captions
    if batch < 1:
        raise ValueError("a grid needs at least one image")
    if captions and len(captions) != batch:
        raise ValueError(f"{len(captions)} captions for {batch} images")
    columns = default_columns(batch) if columns is None else min(columns, batch)
    pictures = enlarged(images)
    layout, lines = lay_out(pictures, captions, columns)
    sheet = Image.new("RGB", layout.sheet_size, BACKGROUND)
    draw_tiles(sheet, layout, pictures, lines)
    return sheet


def default_columns(batch: int) -> int:
    """A number of columns near the square root of ``batch``, without gaps in the last row if any.

    >>> [default_columns(batch) for batch in (1, 2, 3, 4, 7, 8, 12)]
    [1, 2, 3, 2, 3, 4, 4]
    """
    least = math.isqrt(batch - 1) + 1
    widest = max(3, 2 * math.isqrt(batch))
    return next((n for n in range(least, widest + 1) if batch % n == 0), least)
