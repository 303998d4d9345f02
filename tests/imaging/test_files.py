"""Image files in and out."""

import errno
import os

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from sdvar_jax.errors import SdvarError
from sdvar_jax.imaging.files import load_image, save_png, to_uint8


@pytest.fixture
def image():
    return np.random.default_rng(0).uniform(size=(6, 8, 3)).astype(np.float32)


def test_bytes_are_rounded_down_like_the_originals():
    values = np.array([0.0, 0.999 / 255, 1.0 / 255, 0.5, 254.9 / 255, 1.0], np.float32)
    image = np.repeat(values[None, :, None], 3, axis=2)
    assert to_uint8(image)[0, :, 0].tolist() == [0, 0, 1, 127, 254, 255]


def test_values_outside_the_range_are_clipped():
    image = np.array([-0.5, 1.5, np.inf], np.float32).reshape(1, 1, 3)
    assert to_uint8(image).tolist() == [[[0, 255, 255]]]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_device_arrays_of_any_float_dtype_are_taken(dtype):
    assert to_uint8(jnp.ones((2, 4, 4, 3), dtype)).tolist() == np.full((2, 4, 4, 3), 255).tolist()


def test_nan_is_refused(image):
    image[0, 0, 0] = np.nan
    with pytest.raises(SdvarError, match="hold NaN"):
        to_uint8(image)


def test_a_shape_that_is_no_image_is_a_programming_error():
    with pytest.raises(AssertionError):
        to_uint8(np.zeros((3, 4, 4), np.float32))


def test_a_png_holds_the_pixels_and_the_metadata(tmp_path, image):
    save_png(image, tmp_path / "a.png", {"seed": "7", "label": "piñata"})
    with Image.open(tmp_path / "a.png") as opened:
        assert np.array_equal(np.asarray(opened), to_uint8(image))
        assert opened.text == {"seed": "7", "label": "piñata"}


def test_the_format_is_png_whatever_the_suffix(tmp_path, image):
    save_png(image, tmp_path / "picture")
    with Image.open(tmp_path / "picture") as opened:
        assert opened.format == "PNG"


def test_a_failed_save_is_one_clear_line_and_keeps_the_old_file(tmp_path, image, monkeypatch):
    save_png(image, tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(SdvarError, match=r"a\.png: no space left"):
        save_png(image, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_missing_directory_is_named(tmp_path, image):
    with pytest.raises(SdvarError, match="does not exist"):
        save_png(image, tmp_path / "missing" / "a.png")


def test_an_image_of_the_right_size_is_read_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png", 8)
    assert loaded.dtype == np.float32
    np.testing.assert_array_equal(loaded, pixels / np.float32(255))


@pytest.mark.parametrize(("height", "width"), [(8, 24), (24, 8), (16, 48), (5, 15)])
def test_the_centre_is_cropped_after_resizing_the_shorter_side(tmp_path, height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    middle = slice(max(height, width) // 3, 2 * max(height, width) // 3)
    pixels[(slice(None), middle) if width > height else (middle, slice(None))] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png", 8)
    assert loaded.shape == (8, 8, 3)
    assert loaded[2:-2, 2:-2].min() > 0.95  # away from what the resize blurs


def test_the_orientation_that_cameras_store_is_applied(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    loaded = load_image(tmp_path / "a.png", 8)
    assert loaded[:4].max() == 0.0
    assert loaded[4:].min() == 1.0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white(tmp_path, mode):
    Image.new(mode, (4, 4), 0).save(tmp_path / "a.png")
    assert load_image(tmp_path / "a.png", 4).min() == 1.0


@pytest.mark.parametrize(
    ("mode", "colour", "value"),
    [("L", 51, 0.2), ("I;16", 65535, 1.0), ("1", 1, 1.0), ("P", 0, 0.0)],
)
def test_other_pixel_formats_become_rgb(tmp_path, mode, colour, value):
    Image.new(mode, (4, 4), colour).save(tmp_path / "a.png")
    loaded = load_image(tmp_path / "a.png", 4)
    assert loaded.shape == (4, 4, 3)
    np.testing.assert_allclose(loaded, value, atol=1e-6)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(SdvarError, match=r"no image file .*a\.png"):
        load_image(tmp_path / "a.png", 8)


def test_a_directory_is_no_image(tmp_path):
    with pytest.raises(SdvarError, match="is a directory"):
        load_image(tmp_path, 8)


def test_a_foreign_file_is_no_image(tmp_path):
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(SdvarError, match="not an image of a known format"):
        load_image(tmp_path / "a.png", 8)


def test_a_truncated_image_is_told(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SdvarError, match="is damaged"):
        load_image(tmp_path / "a.png", 8)


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63 * 64)
    with pytest.raises(SdvarError, match="too many pixels"):
        load_image(tmp_path / "a.png", 8)
