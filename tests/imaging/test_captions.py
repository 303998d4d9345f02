"""Captions that fit."""

import pytest

from sdvar_jax.imaging.captions import caption_font, drawable, fit_caption
from sdvar_jax.labels import class_names

FONT = caption_font(16)


def test_a_short_caption_is_one_line():
    assert fit_caption("golden retriever", FONT, 300, 2) == ["golden retriever"]


def test_an_empty_caption_has_no_lines():
    assert fit_caption("", FONT, 300, 2) == []


def test_a_long_caption_breaks_at_spaces():
    lines = fit_caption("one two three four", FONT, FONT.getlength("one two t"), 3)
    assert lines == ["one two", "three", "four"]


def test_what_does_not_fit_ends_in_an_ellipsis():
    lines = fit_caption("one two three four", FONT, FONT.getlength("one two t"), 2)
    assert lines[0] == "one two"
    assert lines[1].startswith("thre")
    assert lines[1].endswith("…")


def test_a_word_wider_than_the_line_is_shortened():
    (line,) = fit_caption("incomprehensibilities", FONT, 60, 2)
    assert line.startswith("inc")
    assert line.endswith("…")


@pytest.mark.parametrize("max_lines", [1, 2, 3])
def test_no_line_is_wider_than_asked_and_nothing_that_fits_is_lost(max_lines):
    for name in class_names()[::20]:
        lines = fit_caption(name, FONT, 120, max_lines)
        assert 1 <= len(lines) <= max_lines
        assert all(FONT.getlength(line) <= 120 for line in lines)
        if not any(line.endswith("…") for line in lines):
            assert " ".join(lines) == name


def test_characters_the_font_lacks_are_replaced():
    assert drawable("10\N{MULTIPLICATION SIGN}10 piñata … 犬") == "10x10 pinata … ?"
    assert fit_caption("café", FONT, 300, 1) == ["cafe"]
