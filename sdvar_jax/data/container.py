"""The file that holds a prepared image set: losslessly compressed pictures, labels and credits.

It is an uncompressed zip archive of

- ``meta.json``: format and version, image size, class names, glyph and icon names, credits;
- ``labels.npy`` int32 ``[n]``, ``heldout.npy`` bool ``[n]``, ``offsets.npy`` int64 ``[n + 1]``;
- ``images.bin``: n lossless WebP pictures, number i at ``offsets[i]:offsets[i + 1]``.

Nothing in it depends on when or where it was written: equal contents are equal bytes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdvar_jax.data.iconify import Credit
from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import atomic_file

_FORMAT = "sdvar-images"
_VERSION = 1
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can tell


@dataclasses.dataclass(frozen=True)
class EncodedImages:
    """A prepared image set, its n pictures still compressed.

    Attributes:
      size: side of every picture in pixels.
      class_names: name of each class; labels index it.
      labels: int32 ``[n]``.
      heldout: bool ``[n]``, True for pictures that training must not see.
      glyphs: what each picture shows, the same for all its variants and styles; n entries.
      names: name of each picture in its source; n entries.
      offsets: int64 ``[n + 1]``, where each picture lies in ``payload``.
      payload: the pictures, lossless WebP.
      credits: the sources.
    """

    size: int
    class_names: tuple[str, ...]
    labels: np.ndarray
    heldout: np.ndarray
    glyphs: tuple[str, ...]
    names: tuple[str, ...]
    offsets: np.ndarray
    payload: bytes
    credits: tuple[Credit, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        sound = (
            self.size > 0
            and self.labels.shape == self.heldout.shape == (count,)
            and len(self.glyphs) == count
            and self.offsets.shape == (count + 1,)
            and (count == 0 or 0 <= self.labels.min() <= self.labels.max() < len(self.class_names))
            and bool(np.all(np.diff(self.offsets) > 0))
            and int(self.offsets[0]) == 0
            and int(self.offsets[-1]) == len(self.payload)
        )
        if not sound:
            raise ValueError("labels, splits, names and pictures do not belong together")

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, index: int) -> np.ndarray:
        """Picture ``index`` as uint8 ``[size, size, 3]``."""
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        pixels = decode_image(self.payload[start:stop])
        if pixels.shape != (self.size, self.size, 3):
            raise ValueError(f"picture {index} has shape {pixels.shape}")
        return pixels


def encode_image(pixels: np.ndarray) -> bytes:
    """Compresses uint8 ``[height, width, 3]`` without loss."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=100, method=4)
    return buffer.getvalue()


def decode_image(data: bytes) -> np.ndarray:
    """The inverse of ``encode_image``: uint8 ``[height, width, 3]``."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))  # [height, width, 3]


def join_payload(pictures: Iterable[bytes]) -> tuple[np.ndarray, bytes]:
    """Lays compressed pictures end to end: offsets int64 ``[n + 1]`` and the bytes."""
    pictures = list(pictures)
    offsets = np.zeros(len(pictures) + 1, np.int64)
    np.cumsum([len(picture) for picture in pictures], out=offsets[1:])
    return offsets, b"".join(pictures)


def write_images(path: Path, images: EncodedImages) -> None:
    """Writes the file at ``path``, whole or not at all.

    Raises:
      SdvarError: ``path`` cannot be written.
    """
    meta = {
        "format": _FORMAT,
        "version": _VERSION,
        "size": images.size,
        "class_names": images.class_names,
        "credits": [dataclasses.asdict(credit) for credit in images.credits],
        "glyphs": images.glyphs,
        "names": images.names,
    }
    members = {
        "meta.json": json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode(),
        "labels.npy": _npy(images.labels.astype("<i4")),
        "heldout.npy": _npy(images.heldout.astype(np.bool_)),
        "offsets.npy": _npy(images.offsets.astype("<i8")),
        "images.bin": images.payload,
    }
    with atomic_file(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(_member(name), data)


def read_images(path: Path) -> EncodedImages:
    """Reads a file written by ``write_images``.

    Raises:
      SdvarError: there is no such file, or it is damaged or of another kind.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read("meta.json"))
            _check_header(path, meta)
            return EncodedImages(
                size=int(meta["size"]),
                class_names=tuple(meta["class_names"]),
                labels=_array(archive.read("labels.npy")),
                heldout=_array(archive.read("heldout.npy")),
                glyphs=tuple(meta["glyphs"]),
                names=tuple(meta["names"]),
                offsets=_array(archive.read("offsets.npy")),
                payload=archive.read("images.bin"),
                credits=tuple(Credit(**credit) for credit in meta["credits"]),
            )
    except FileNotFoundError as error:
        raise SdvarError(f"no image set at {path}; prepare one first") from error
    except (OSError, EOFError, zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise SdvarError(
            f"cannot read the image set {path} ({error}); the file is damaged or not an image "
            "set: prepare it again"
        ) from error


def _check_header(path: Path, meta: Mapping[str, Any]) -> None:
    if meta.get("format") != _FORMAT:
        raise ValueError("unknown format")
    if meta.get("version") != _VERSION:
        raise SdvarError(
            f"{path} is an image set of version {meta.get('version')}, this program reads version "
            f"{_VERSION}; prepare it again"
        )


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EPOCH)
    member.create_system = 3  # the same on every system
    member.external_attr = 0o644 << 16
    return member


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
