"""Captions that fit under a tile."""

from __future__ import annotations

import functools
import itertools
import unicodedata

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_ELLIPSIS = "…"
_TIMES = "\N{MULTIPLICATION SIGN}"


@functools.cache
def caption_font(size: int) -> Font:
    """Pillow's own scalable font at ``size`` pixels; see :func:`drawable` for what it lacks."""
    return ImageFont.load_default(size)


def drawable(text: str) -> str:
    """``text`` in the characters that Pillow's own font has, which are hardly more than ASCII.

    Accents are dropped, the multiplication sign becomes an x, and what is left over a question
    mark; the font would draw an empty box for each.
    """
    decomposed = unicodedata.normalize("NFD", text.replace(_TIMES, "x"))
    kept = (char for char in decomposed if not unicodedata.combining(char))
    return "".join(char if char.isascii() or char == _ELLIPSIS else "?" for char in kept)


def line_height(font: Font) -> int:
    """Pixels from one line of text to the next."""
    top, bottom = (font.getbbox("Tgjpqy|")[side] for side in (1, 3))
    return round((bottom - top) * 1.15)


def fit_caption(text: str, font: Font, width: float, max_lines: int) -> list[str]:
    """Breaks ``text`` at spaces into lines no wider than ``width``, and shortens what is left.

    Args:
      text: the caption.
      font: the font it will be drawn in.
      width: of a line, in pixels.
      max_lines: how many lines there is room for; at least 1.

    Returns:
      At most ``max_lines`` lines. A text or word that does not fit ends in an ellipsis.
    """
    lines: list[str] = []
    words = drawable(text).split()
    while words and len(lines) < max_lines:
        if len(lines) == max_lines - 1:
            return [*lines, _shorten(" ".join(words), font, width)]
        lengths = itertools.accumulate(words, lambda line, word: f"{line} {word}")
        fitting = max(1, sum(font.getlength(line) <= width for line in lengths))
        lines.append(_shorten(" ".join(words[:fitting]), font, width))
        words = words[fitting:]
    return lines


def _shorten(line: str, font: Font, width: float) -> str:
    if font.getlength(line) <= width:
        return line
    for length in range(len(line) - 1, 0, -1):
        shortened = line[:length].rstrip() + _ELLIPSIS
        if font.getlength(shortened) <= width:
            return shortened
    return _ELLIPSIS


def draw_caption(
    draw: ImageDraw.ImageDraw,
    lines: list[str],
    font: Font,
    centre: float,
    top: float,
    colour: str,
) -> None:
    """Draws the lines one below the other, each centred on the x position ``centre``."""
    for index, line in enumerate(lines):
        draw.text((centre, top + index * line_height(font)), line, colour, font, anchor="ma")
