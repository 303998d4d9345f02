"""Strips: the image after each scale, framed by who made it."""

import numpy as np
import pytest
from PIL import ImageColor

from sdvar_jax.imaging.files import to_uint8
from sdvar_jax.imaging.strip import MAKER_COLOURS, maker_colours, scale_strip
from sdvar_jax.imaging.tiles import enlarged, lay_out

CAPTIONS = ["1x1", "2x2", "3x3"]


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(size=(3, 128, 128, 3)).astype(np.float32)


@pytest.mark.parametrize("columns", [None, 2])
def test_each_image_is_whole_and_framed_in_its_makers_colour(images, columns):
    makers = ["draft", "target", "bonus"]
    sheet = np.asarray(scale_strip(list(images), CAPTIONS, makers, columns=columns))
    layout, _ = lay_out(enlarged(images), CAPTIONS, columns or 3)
    for index, maker in enumerate(makers):
        left, top = layout.corner(index)
        assert np.array_equal(sheet[top : top + 128, left : left + 128], to_uint8(images[index]))
        colour = list(ImageColor.getrgb(MAKER_COLOURS[maker]))
        beside = [(top - 1, left + 64), (top + 128, left + 64), (top + 64, left - 1)]
        assert [sheet[y, x].tolist() for y, x in beside] == [colour] * 3


def test_the_legend_names_the_makers_below_the_strip(images):
    plain = scale_strip(images, CAPTIONS)
    framed = np.asarray(scale_strip(images, CAPTIONS, ["draft", "draft", "target"]))
    legend = framed[plain.height :].reshape(-1, 3).tolist()
    assert list(ImageColor.getrgb(MAKER_COLOURS["draft"])) in legend
    assert list(ImageColor.getrgb(MAKER_COLOURS["target"])) in legend
    assert list(ImageColor.getrgb(MAKER_COLOURS["bonus"])) not in legend


def test_a_legend_wider_than_the_strip_widens_it(images):
    makers = ["a maker with quite a long name", "another one of them", "target"]
    assert scale_strip(images, CAPTIONS, makers, columns=1).width > 200


def test_makers_without_a_colour_of_their_own_get_distinct_ones():
    colours = maker_colours(["draft", "first", "second", "first", "target"])
    assert list(colours) == ["draft", "first", "second", "target"]
    assert len(set(colours.values())) == 4
    assert colours["draft"] == MAKER_COLOURS["draft"]


def test_captions_and_makers_must_be_one_an_image(images):
    with pytest.raises(ValueError, match="must be 3"):
        scale_strip(images, CAPTIONS[:2])
    with pytest.raises(ValueError, match="must be 3"):
        scale_strip(images, CAPTIONS, ["draft"])
    with pytest.raises(ValueError, match="at least one image"):
        scale_strip([], [])
