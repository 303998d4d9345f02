"""Arrays that are read when they are needed, so that a checkpoint is never in memory at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


@dataclasses.dataclass(frozen=True)
class LazyArray:
    """Shape and dtype of an array, and how to read it.

    Attributes:
      shape: of what ``read`` returns.
      dtype: of what ``read`` returns.
      read: returns the array. Nothing is kept between calls.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the array in memory."""
        return self.size * self.dtype.itemsize

    def transformed(
        self, transform: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
    ) -> LazyArray:
        """The array after ``transform``, which keeps the dtype and gives ``shape``."""
        return LazyArray(tuple(shape), self.dtype, lambda: transform(self.read()))

    def cast(self, dtype: np.dtype) -> LazyArray:
        """The array in another dtype."""
        if dtype == self.dtype:
            return self
        return LazyArray(self.shape, dtype, lambda: self.read().astype(dtype))

    @classmethod
    def of(cls, array: Any) -> LazyArray:
        """Wraps a NumPy or JAX array; a lazy array stays as it is."""
        if isinstance(array, LazyArray):
            return array
        return cls(tuple(array.shape), np.dtype(array.dtype), lambda: np.asarray(array))

    @classmethod
    def in_file(
        cls,
        path: Path,
        offset: int,
        shape: tuple[int, ...],
        dtype: np.dtype,
        strides: tuple[int, ...] | None = None,
    ) -> LazyArray:
        """An array stored raw in a file, mapped into memory while it is read.

        Args:
          path: the file.
          offset: where its first element is, in bytes.
          shape: of the array.
          dtype: of the array, little endian.
          strides: step of each axis in elements (not negative); None where it is contiguous.
        """

        def read() -> np.ndarray:
            if math.prod(shape) == 0:
                return np.zeros(shape, dtype)
            steps = strides or _contiguous(shape)
            span = 1 + sum((length - 1) * step for length, step in zip(shape, steps, strict=True))
            # A mapping of its own for each read: its pages leave memory with the array.
            raw = np.memmap(path, np.uint8, "r", offset, (span * dtype.itemsize,))
            flat = raw.view(np.ndarray).view(dtype)
            return np.lib.stride_tricks.as_strided(
                flat, shape, [step * dtype.itemsize for step in steps], writeable=False
            )

        return cls(tuple(shape), dtype, read)


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
