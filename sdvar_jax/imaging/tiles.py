"""What grids and strips have in common: tiles of one size with captions under them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import chex
import numpy as np
from PIL import Image, ImageDraw

from sdvar_jax.imaging.captions import caption_font, draw_caption, fit_caption, line_height
from sdvar_jax.imaging.files import to_uint8

BACKGROUND = "#ffffff"
INK = "#202124"

# Small images are enlarged by a whole factor up to about this side, or captions would not fit.
_LEAST_SIDE = 128
_MOST_LINES = 2


@dataclasses.dataclass(frozen=True)
class TileLayout:
    """Sizes in pixels of a sheet of tiles.

    Attributes:
      width: of a tile's picture.
      height: of a tile's picture.
      columns: tiles in a row.
      rows: rows of tiles.
      gap: space around every tile.
      font_size: of the captions.
      caption_height: room for the captions under each tile.
    """

    width: int
    height: int
    columns: int
    rows: int
    gap: int
    font_size: int
    caption_height: int

    @property
    def sheet_size(self) -> tuple[int, int]:
        """Width and height of the whole sheet."""
        across = self.gap + self.columns * (self.width + self.gap)
        down = self.gap + self.rows * (self.height + self.caption_height + self.gap)
        return across, down

    def corner(self, index: int) -> tuple[int, int]:
        """Left and top of the picture of tile ``index``, counted row by row."""
        row, column = divmod(index, self.columns)
        left = self.gap + column * (self.width + self.gap)
        top = self.gap + row * (self.height + self.caption_height + self.gap)
        return left, top


def enlarged(images: chex.ArrayNumpy | chex.Array) -> np.ndarray:
    """Images [batch, height, width, 3] in [0, 1] as uint8, small ones enlarged pixel by pixel."""
    chex.assert_shape(images, (None, None, None, 3))
    factor = max(1, _LEAST_SIDE // images.shape[2])
    return to_uint8(images).repeat(factor, axis=1).repeat(factor, axis=2)


def lay_out(
    pictures: np.ndarray, captions: Sequence[str], columns: int
) -> tuple[TileLayout, list[list[str]]]:
    """The layout for uint8 pictures [batch, height, width, 3], and each caption's lines."""
    batch, height, width, _ = pictures.shape
    gap = max(8, round(width / 20))
    font_size = max(11, min(28, round(width / 13)))
    font = caption_font(font_size)
    lines = [fit_caption(caption, font, width, _MOST_LINES) for caption in captions]
    most = max((len(each) for each in lines), default=0)
    layout = TileLayout(
        width=width,
        height=height,
        columns=columns,
        rows=-(-batch // columns),
        gap=gap,
        font_size=font_size,
        # The space above a caption is half the gap; as much again below sets it off the next row.
        caption_height=most * line_height(font) + (gap if most else 0),
    )
    return layout, lines


def draw_tiles(
    sheet: Image.Image, layout: TileLayout, pictures: np.ndarray, lines: list[list[str]]
) -> None:
    """Puts the pictures and the lines of their captions on the sheet."""
    draw = ImageDraw.Draw(sheet)
    font = caption_font(layout.font_size)
    for index, picture in enumerate(pictures):
        left, top = layout.corner(index)
        sheet.paste(Image.fromarray(picture), (left, top))
        if lines:
            caption_top = top + layout.height + layout.gap // 2
            draw_caption(draw, lines[index], font, left + layout.width / 2, caption_top, INK)
