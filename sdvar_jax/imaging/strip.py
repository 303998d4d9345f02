"""The image as it stands after each scale, and who made that scale."""

from __future__ import annotations

from collections.abc import Sequence

import chex
import numpy as np
from PIL import Image, ImageDraw

from sdvar_jax.imaging.captions import caption_font, drawable, line_height
from sdvar_jax.imaging.tiles import BACKGROUND, INK, TileLayout, draw_tiles, enlarged, lay_out

# Colours that colour-blind readers can tell apart (Okabe and Ito). Makers that are not named here
# take the remaining ones in the order in which they appear.
MAKER_COLOURS = {
    "target": "#0072b2",
    "draft": "#e69f00",
    "bonus": "#009e73",
}
_OTHER_COLOURS = ("#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#666666")


def scale_strip(
    images: Sequence[chex.ArrayNumpy | chex.Array] | chex.ArrayNumpy | chex.Array,
    captions: Sequence[str],
    makers: Sequence[str] | None = None,
    *,
    columns: int | None = None,
) -> Image.Image:
    """Lays one sample's images side by side, framed in the colour of each scale's maker.

    Args:
      images: one image a scale, coarsest first, each float [height, width, 3] in [0, 1].
      captions: one a scale, such as "3x3".
      makers: who made each scale ("draft", "target", "bonus" or any other word); a legend names
        them. None draws neither frames nor legend.
      columns: images in a row; all in one row if None.

    Returns:
      The strip as an RGB picture.
    """
    count = len(images)
    if count < 1:
        raise ValueError("a strip needs at least one image")
    if len(captions) != count or (makers is not None and len(makers) != count):
        raise ValueError(f"captions and makers must be {count}, one an image")
    pictures = enlarged(np.stack([np.asarray(image, np.float32) for image in images]))
    layout, lines = lay_out(pictures, captions, count if columns is None else min(columns, count))
    if makers is None:
        sheet = Image.new("RGB", layout.sheet_size, BACKGROUND)
        draw_tiles(sheet, layout, pictures, lines)
        return sheet
    colours = maker_colours(makers)
    width, height = layout.sheet_size
    legend_width, legend_height = _legend_size(layout, colours)
    sheet = Image.new("RGB", (max(width, legend_width), height + legend_height), BACKGROUND)
    draw_tiles(sheet, layout, pictures, lines)
    _draw_frames(sheet, layout, [colours[maker] for maker in makers])
    _draw_legend(sheet, layout, colours, top=height)
    return sheet


def maker_colours(makers: Sequence[str]) -> dict[str, str]:
    """A colour for each maker, in the order of first appearance; they repeat after eight."""
    others = [maker for maker in dict.fromkeys(makers) if maker not in MAKER_COLOURS]
    extra = {m: _OTHER_COLOURS[i % len(_OTHER_COLOURS)] for i, m in enumerate(others)}
    return {maker: (MAKER_COLOURS | extra)[maker] for maker in dict.fromkeys(makers)}


def _draw_frames(sheet: Image.Image, layout: TileLayout, colours: Sequence[str]) -> None:
    draw = ImageDraw.Draw(sheet)
    thickness = max(3, layout.gap * 2 // 5)
    for index, colour in enumerate(colours):
        left, top = layout.corner(index)
        right, bottom = left + layout.width - 1, top + layout.height - 1
        # Outside the picture, so that no pixel of it is hidden.
        frame = (left - thickness, top - thickness, right + thickness, bottom + thickness)
        draw.rectangle(frame, outline=colour, width=thickness)


def _legend_size(layout: TileLayout, colours: dict[str, str]) -> tuple[int, int]:
    font = caption_font(layout.font_size)
    entries = sum(_entry_width(layout, maker) for maker in colours)
    return round(entries) + 2 * layout.gap, line_height(font) + layout.gap


def _entry_width(layout: TileLayout, maker: str) -> float:
    swatch = layout.font_size
    return (
        swatch * 1.5 + caption_font(layout.font_size).getlength(drawable(maker)) + layout.gap * 1.5
    )


def _draw_legend(
    sheet: Image.Image, layout: TileLayout, colours: dict[str, str], top: float
) -> None:
    draw = ImageDraw.Draw(sheet)
    font = caption_font(layout.font_size)
    swatch = layout.font_size
    left = float(layout.gap)
    for maker, colour in colours.items():
        draw.rectangle((left, top, left + swatch, top + swatch), fill=colour)
        draw.text((left + swatch * 1.5, top + swatch / 2), drawable(maker), INK, font, anchor="lm")
        left += _entry_width(layout, maker)
