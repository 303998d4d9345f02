"""The user's own pictures: a folder with one sub-folder a class."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import SupportsIndex

import numpy as np
from PIL import Image, ImageOps

from sdvar_jax.data.source import Example
from sdvar_jax.data.split import Split, is_heldout, split_rows
from sdvar_jax.errors import SdvarError

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class ImageFolderDataset:
    """One split of a folder of pictures; the sub-folders, sorted by name, are the classes.

    Attributes:
      size: side of the pictures in pixels, after resizing and cropping.
      class_names: names of the sub-folders.
      labels: int32 ``[n]``.
      paths: the picture files, n entries.
      images: uint8 ``[n, size, size, 3]`` where everything was decoded to memory, else None.
    """

    def __init__(
        self,
        root: str | Path,
        size: int,
        split: Split = "train",
        *,
        heldout_fraction: float = 0.05,
        in_memory: bool = False,
    ) -> None:
        """Lists the folder.

        Args:
          root: the folder. Pictures may lie deeper inside the sub-folders.
          size: side in pixels: the shorter side is resized to it, then the centre is cropped.
          split: ``"train"``, ``"heldout"`` or ``"all"``.
          heldout_fraction: share of the pictures held out, chosen by the path below ``root``.
          in_memory: decode every picture now.

        Raises:
          SdvarError: there is no such folder or split, it holds no picture, an argument is out of
            range, or, with ``in_memory``, a picture cannot be read.
        """
        if size < 1:
            raise SdvarError(f"the picture size must be positive, got {size}")
        if not 0 <= heldout_fraction < 1:
            raise SdvarError(f"the held-out fraction must be in [0, 1), got {heldout_fraction}")
        root = Path(root)
        class_names, paths, labels = _list_pictures(root)
        identities = [path.relative_to(root).as_posix() for path in paths]
        heldout = np.array([is_heldout(name, heldout_fraction) for name in identities], np.bool_)
        rows = split_rows(heldout, split)
        self.size: int = size
        self.class_names: tuple[str, ...] = class_names
        self.labels: np.ndarray = np.array(labels, np.int32)[rows]  # [n]
        self.paths: tuple[Path, ...] = tuple(paths[row] for row in rows)
        self.images: np.ndarray | None = None
        if in_memory:
            self.images = self._read(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: SupportsIndex) -> Example:
        number = operator.index(index)
        if self.images is None:
            image = read_square(self.paths[number], self.size)
        else:
            image = self.images[number].copy()
        return {"image": image, "label": self.labels[number]}

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 ``[m, size, size, 3]`` and labels int32 ``[m]`` at ``indices``."""
        images = self._read(indices) if self.images is None else self.images[indices]
        return images, self.labels[indices]

    def _read(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for place, index in enumerate(indices):
            images[place] = read_square(self.paths[int(index)], self.size)
        return images


def read_square(path: Path, size: int) -> np.ndarray:
    """Reads a picture as uint8 ``[size, size, 3]``.

    It is turned as its camera noted, laid on white where it is transparent, its shorter side is
    resized to ``size`` (Lanczos) and its centre is cropped.

    Raises:
      SdvarError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise SdvarError(
            f"cannot read the picture {path} ({error}); remove or replace it"
        ) from error
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image).convert("RGB")
    fitted = ImageOps.fit(flat, (size, size), method=Image.Resampling.LANCZOS)
    return np.asarray(fitted)  # [size, size, 3]


def _list_pictures(root: Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    """Class names, picture files in a fixed order, and the label of each."""
    if not root.is_dir():
        raise SdvarError(f"no folder at {root}; give a folder with one sub-folder a class")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = sorted(
            p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES and p.is_file()
        )
        if not found:
            raise SdvarError(
                f"the class folder {folder} holds no picture ({', '.join(sorted(_SUFFIXES))}); "
                "add some or remove it"
            )
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise SdvarError(f"{root} has no sub-folders; put the pictures into one sub-folder a class")
    return tuple(folder.name for folder in folders), paths, labels
