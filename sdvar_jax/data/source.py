"""What the loader asks of a data set."""

from __future__ import annotations

from typing import Protocol, SupportsIndex, TypedDict, runtime_checkable

import numpy as np


class Example(TypedDict):
    """One labelled picture.

    Attributes:
      image: uint8 ``[size, size, 3]``.
      label: int32 scalar, index into the class names.
    """

    image: np.ndarray
    label: np.int32


@runtime_checkable
class ImageSource(Protocol):
    """Labelled square pictures with random access; safe to read from several threads.

    Attributes:
      size: side of the pictures in pixels.
      class_names: name of each class.
      labels: int32 ``[n]``, the label of every picture.
    """

    size: int
    class_names: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int: ...

    def __getitem__(self, index: SupportsIndex) -> Example: ...

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 ``[m, size, size, 3]`` and labels int32 ``[m]`` at ``indices``."""
        ...
