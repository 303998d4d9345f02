"""Reading a prepared image set, picture by picture or as one array."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import SupportsIndex

import numpy as np

from sdvar_jax.data.container import EncodedImages, read_images
from sdvar_jax.data.folder import ImageFolderDataset
from sdvar_jax.data.iconify import Credit
from sdvar_jax.data.source import Example
from sdvar_jax.data.split import Split, split_rows
from sdvar_jax.errors import SdvarError


class ImageDataset:
    """One split of a prepared image set.

    Attributes:
      size: side of the pictures in pixels.
      class_names: name of each class; classes without a picture in this split count too.
      labels: int32 ``[n]``.
      glyphs: what each picture shows, n entries.
      names: name of each picture in its source, n entries.
      credits: whom the pictures are owed to.
      images: uint8 ``[n, size, size, 3]`` where everything was decoded to memory, else None.
    """

    def __init__(
        self, encoded: EncodedImages, split: Split = "train", *, in_memory: bool = False
    ) -> None:
        """Takes the split of ``encoded``.

        Args:
          encoded: the whole image set.
          split: ``"train"``, ``"heldout"`` or ``"all"``.
          in_memory: decode every picture now; reading is then a copy out of one array.

        Raises:
          SdvarError: there is no such split, or a picture is damaged.
        """
        self._encoded = encoded
        self._rows = split_rows(encoded.heldout, split)
        self.size: int = encoded.size
        self.class_names: tuple[str, ...] = encoded.class_names
        self.labels: np.ndarray = encoded.labels[self._rows].astype(np.int32)  # [n]
        self.glyphs: tuple[str, ...] = tuple(encoded.glyphs[row] for row in self._rows)
        self.names: tuple[str, ...] = tuple(encoded.names[row] for row in self._rows)
        self.credits: tuple[Credit, ...] = encoded.credits
        self.images: np.ndarray | None = None
        if in_memory:
            self.images = self._decode(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: SupportsIndex) -> Example:
        number = operator.index(index)
        image = self._decoded(number) if self.images is None else self.images[number].copy()
        return {"image": image, "label": self.labels[number]}

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 ``[m, size, size, 3]`` and labels int32 ``[m]`` at ``indices``."""
        images = self._decode(indices) if self.images is None else self.images[indices]
        return images, self.labels[indices]

    def _decode(self, indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), self.size, self.size, 3), np.uint8)
        for place, index in enumerate(indices):
            images[place] = self._decoded(int(index))
        return images

    def _decoded(self, index: int) -> np.ndarray:
        try:
            return self._encoded.decode(int(self._rows[index]))
        except (OSError, ValueError) as error:
            raise SdvarError(
                f"picture {self.names[index]} of the image set is damaged ({error}); "
                "prepare the set again"
            ) from error


def load_dataset(
    path: str | Path,
    split: Split = "train",
    *,
    size: int | None = None,
    in_memory: bool = False,
) -> ImageDataset | ImageFolderDataset:
    """Opens a prepared image set (a file) or a folder with one sub-folder of pictures a class.

    Args:
      path: the file or the folder.
      split: ``"train"``, ``"heldout"`` or ``"all"``.
      size: side in pixels. A folder's pictures are resized to it, and need it; a prepared set has
        its size, which must be this one if it is given.
      in_memory: decode every picture now.

    Raises:
      SdvarError: nothing usable is at ``path``, the split is empty or does not exist, or the size
        does not fit.
    """
    path = Path(path)
    dataset: ImageDataset | ImageFolderDataset
    if path.is_dir():
        if size is None:
            raise SdvarError(f"{path} is a folder of pictures; say at which size to read them")
        dataset = ImageFolderDataset(path, size, split, in_memory=in_memory)
    else:
        encoded = read_images(path)
        if size not in (None, encoded.size):
            raise SdvarError(
                f"{path} holds pictures of {encoded.size} px, not {size}; prepare it at {size} px"
            )
        dataset = ImageDataset(encoded, split, in_memory=in_memory)
    if not len(dataset):
        raise SdvarError(f"the {split} split of {path} holds no picture")
    return dataset
