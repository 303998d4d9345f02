"""Image files: from and to float arrays in [0, 1]."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import chex
import numpy as np
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import atomic_file


def to_uint8(images: chex.ArrayNumpy | chex.Array) -> np.ndarray:
    """Images as bytes, rounded down as the original VAR does (``mul(255)`` cast to uint8).

    Args:
      images: [..., height, width, 3] of any float dtype, in [0, 1]; what lies outside is clipped.

    Returns:
      The same shape as uint8.

    Raises:
      SdvarError: a value is NaN, which a model gives whose arithmetic overflowed.
    """
    chex.assert_shape(images, (..., 3))
    values = np.asarray(images, np.float32)
    if np.isnan(values).any():
        raise SdvarError(
            "the images hold NaN, so the model's arithmetic overflowed or its weights are damaged; "
            "try dtype bfloat16 or float32"
        )
    return (np.clip(values, 0.0, 1.0) * np.float32(255)).astype(np.uint8)


def to_pil(image: chex.ArrayNumpy | chex.Array) -> Image.Image:
    """One image [height, width, 3] in [0, 1] as a PIL image."""
    chex.assert_shape(image, (None, None, 3))
    return Image.fromarray(to_uint8(image))


def save_png(
    image: Image.Image | chex.ArrayNumpy | chex.Array,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a PNG that appears complete or not at all.

    Args:
      image: a PIL image, or an array [height, width, 3] in [0, 1].
      path: the file's destination; a file already there is replaced. The format is PNG whatever
        its suffix.
      metadata: texts to store in the file by keyword, such as the seed.

    Raises:
      SdvarError: the destination cannot be written, see
        :func:`sdvar_jax.runtime.atomic.atomic_file`.
    """
    picture = image if isinstance(image, Image.Image) else to_pil(image)
    info = PngImagePlugin.PngInfo()
    for keyword, text in (metadata or {}).items():
        info.add_itxt(keyword, text)
    with atomic_file(path) as aside:
        picture.save(aside, format="PNG", pnginfo=info)


def load_image(path: str | os.PathLike[str], size: int) -> np.ndarray:
    """Reads an image file as a square: shorter side resized to ``size``, then the centre cropped.

    The orientation that cameras store is applied, transparency is laid over white, and resizing is
    Lanczos with antialiasing, as in the original's data pipeline.

    Args:
      path: any file that Pillow reads; of several frames the first counts.
      size: side of the result in pixels.

    Returns:
      float32 [size, size, 3] in [0, 1].

    Raises:
      SdvarError: the file is missing, unreadable, not an image, damaged, or unreasonably large.
    """
    picture = _read(Path(path).expanduser(), path)
    scale = size / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    left, top = ((side - size) // 2 for side in (width, height))
    picture = picture.crop((left, top, left + size, top + size))
    image = np.asarray(picture, np.float32) / np.float32(255)  # [size, size, 3]
    chex.assert_shape(image, (size, size, 3))
    return image


def _read(file: Path, path: str | os.PathLike[str]) -> Image.Image:
    """The file's picture in RGB, upright."""
    try:
        with warnings.catch_warnings():
            # Pillow only warns of a file that unpacks to a suspicious size; beyond, it raises.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                opened.load()
                return _rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise SdvarError(f"there is no image file {path}") from None
    except IsADirectoryError:
        raise SdvarError(f"{path} is a directory; give an image file") from None
    except PermissionError:
        raise SdvarError(f"no permission to read the image file {path}") from None
    except UnidentifiedImageError:
        raise SdvarError(f"{path} is not an image of a known format") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise SdvarError(f"the image {path} has too many pixels; scale it down first") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise SdvarError(f"the image {path} is damaged: {error}") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits a pixel, which Pillow would clip instead of scale
        return Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")
