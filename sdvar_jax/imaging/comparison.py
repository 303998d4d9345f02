"""The same pictures made in several ways: one way a row, named at its left."""

from __future__ import annotations

from collections.abc import Sequence

import chex
from PIL import Image, ImageDraw

from sdvar_jax.imaging.captions import caption_font, draw_caption, fit_caption, line_height
from sdvar_jax.imaging.tiles import BACKGROUND, INK, draw_tiles, enlarged, lay_out

# Room for the labels of rows, in units of a picture's width.
_LABEL_WIDTH = 1.4
_MOST_LINES_OF_A_LABEL_LINE = 3


def comparison_grid(
    images: chex.ArrayNumpy | chex.Array, labels: Sequence[str], captions: Sequence[str]
) -> Image.Image:
    """Lays rows of images out below each other, named at the left, columns named at the top.

    Args:
      images: float [rows, columns, height, width, 3] in [0, 1]. Images of less than 128 pixels are
        enlarged by a whole factor.
      labels: one a row, in as many lines as it has; long ones are wrapped, then shortened.
      captions: one a column, likewise.

    Returns:
      The grid as an RGB picture.
    """
    chex.assert_shape(images, (None, None, None, None, 3))
    rows, columns = images.shape[:2]
    if rows * columns < 1:
        raise ValueError("a comparison needs at least one image")
    if len(labels) != rows or len(captions) != columns:
        raise ValueError(
            f"{len(labels)} labels and {len(captions)} captions for {rows} rows of {columns}"
        )
    pictures = enlarged(images.reshape(-1, *images.shape[2:]))
    layout, _ = lay_out(pictures, [], columns)
    font = caption_font(layout.font_size)
    height = line_height(font)
    label_width = round(_LABEL_WIDTH * layout.width)
    named = [fit_caption(caption, font, layout.width, 2) for caption in captions]
    margin_left = layout.gap + label_width
    margin_top = layout.gap // 2 + height * max(len(lines) for lines in named)

    across, down = layout.sheet_size
    tiles = Image.new("RGB", (across, down), BACKGROUND)
    draw_tiles(tiles, layout, pictures, [])
    sheet = Image.new("RGB", (margin_left + across, margin_top + down), BACKGROUND)
    sheet.paste(tiles, (margin_left, margin_top))
    draw = ImageDraw.Draw(sheet)
    for column, lines in enumerate(named):
        centre = margin_left + layout.corner(column)[0] + layout.width / 2
        draw_caption(draw, lines, font, centre, layout.gap // 2, INK)
    for row, label in enumerate(labels):
        lines = [
            fitted
            for line in label.splitlines()
            for fitted in fit_caption(line, font, label_width, _MOST_LINES_OF_A_LABEL_LINE)
        ]
        middle = margin_top + layout.corner(row * columns)[1] + layout.height / 2
        top = middle - height * len(lines) / 2
        for index, line in enumerate(lines):
            draw.text((layout.gap, top + index * height), line, INK, font, anchor="la")
    return sheet
