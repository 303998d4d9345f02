"""Matrices stored in 8 bits: whole numbers from -127 to 127 and one float32 scale a column.

A column is everything at one place of the last axis. Its scale is its largest magnitude / 127, so
rounding moves a weight by at most half a scale: 1/254 of the largest magnitude of its column.

Rounding what was read back in float32 gives the very same numbers, and the same scales but for the
last bit. So a model may be stored, read and stored again without becoming any worse. Read back in
bfloat16, numbers may move by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdvar_jax.checkpoint.lazy import DTYPES, LazyArray
from sdvar_jax.errors import SdvarError

LARGEST = 127
FEWEST_ROWS = 64
"""A scale takes the place of four numbers: with fewer rows than this it costs too much."""

_INT8, _FLOAT32 = np.dtype(np.int8), np.dtype(np.float32)
# No parameter is called so: a path that ends at an array does not go on below it.
_SCALE_SUFFIX = ".scale"


def column_scales(weights: np.ndarray) -> np.ndarray:
    """One step between whole numbers a column.

    Args:
      weights: floats [..., columns].

    Returns:
      float32 [columns]: largest magnitude / 127. 1 for a column of zeros, and for one so small
      (below 1.5e-36) that float32 has no such scale in full precision; it becomes zeros.

    Raises:
      SdvarError: a weight is NaN or infinite.
    """
    magnitudes = np.abs(weights.astype(np.float32, copy=False))
    largest = magnitudes.max(axis=tuple(range(weights.ndim - 1)), initial=0)
    if not np.isfinite(largest).all():
        raise SdvarError("NaN or infinite values cannot be stored in int8")
    scales = largest / np.float32(LARGEST)
    return np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)


def round_to_int8(weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The nearest whole number of scales: int8 [..., columns], -127 to 127."""
    return np.rint(weights.astype(np.float32, copy=False) / scales).astype(np.int8)


def from_int8(numbers: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The weights that numbers and scales stand for: float32 [..., columns]."""
    return np.multiply(numbers, scales, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Int8Array(LazyArray):
    """A float32 array that is stored in 8 bits.

    Attributes:
      numbers: int8, of the array's shape.
      scales: float32 [columns].
    """

    numbers: LazyArray
    scales: LazyArray

    @classmethod
    def joined(cls, numbers: LazyArray, scales: LazyArray) -> Int8Array:
        """The array that numbers and scales stand for."""

        def read() -> np.ndarray:
            return from_int8(numbers.read(), scales.read())

        return cls(numbers.shape, _FLOAT32, read, numbers, scales)

    @classmethod
    def rounding(cls, array: LazyArray, name: str) -> Int8Array:
        """An array to be rounded when it is read.

        Args:
          array: floats [..., columns].
          name: of the array, for errors.
        """
        if isinstance(array, Int8Array):
            return array

        def scales_of(weights: np.ndarray) -> np.ndarray:
            try:
                return column_scales(weights)
            except SdvarError as error:
                raise SdvarError(f"{name}: {error}") from error

        def read_numbers() -> np.ndarray:
            weights = array.read()
            return round_to_int8(weights, scales_of(weights))

        return cls.joined(
            LazyArray(array.shape, _INT8, read_numbers),
            LazyArray(array.shape[-1:], _FLOAT32, lambda: scales_of(array.read())),
        )

    def cast(self, dtype: np.dtype) -> LazyArray:
        """The array stored in floats instead, float32 too."""
        return LazyArray(self.shape, dtype, lambda: self.read().astype(dtype, copy=False))


def may_be_rounded(array: LazyArray) -> bool:
    """Whether an array is a matrix of floats that gains by 8 bits."""
    return array.ndim == 2 and array.shape[0] >= FEWEST_ROWS and array.dtype in set(DTYPES.values())


def stored_arrays(name: str, array: LazyArray) -> dict[str, LazyArray]:
    """What stands for an array in a file: itself, or ``NAME`` (int8) and ``NAME.scale``."""
    if isinstance(array, Int8Array):
        return {name: array.numbers, name + _SCALE_SUFFIX: array.scales}
    return {name: array}


def joined_arrays(stored: Mapping[str, LazyArray], path: Path) -> dict[str, LazyArray]:
    """The arrays that ``stored_arrays`` stand for, in their order; none is read yet.

    Args:
      stored: name -> array of a file.
      path: of the file, for errors.

    Raises:
      SdvarError: the scales of an int8 array are missing or of another shape or dtype (from
        ``read``: they are no positive numbers).
    """
    joined: dict[str, LazyArray] = {}
    scales_of_others = {
        name + _SCALE_SUFFIX for name, array in stored.items() if array.dtype == _INT8
    }
    for name, array in stored.items():
        if array.dtype == _INT8:
            scales = stored.get(name + _SCALE_SUFFIX)
            joined[name] = Int8Array.joined(array, _checked(scales, array, name, path))
        elif name not in scales_of_others:
            joined[name] = array
    return joined


def _checked(scales: LazyArray | None, numbers: LazyArray, name: str, path: Path) -> LazyArray:
    """The scales of an int8 array, looked at when they are read."""
    if scales is None:
        raise SdvarError(
            f"{path} is damaged: {name} is int8, but {name}{_SCALE_SUFFIX} is missing; convert the "
            "checkpoint again"
        )
    wanted = numbers.shape[-1:]
    if scales.shape != wanted or scales.dtype != _FLOAT32:
        raise SdvarError(
            f"{path} is damaged: {name}{_SCALE_SUFFIX} is {scales.dtype} {list(scales.shape)} "
            f"instead of float32 {list(wanted)}; convert the checkpoint again"
        )

    def read() -> np.ndarray:
        values = scales.read()
        if not (np.isfinite(values) & (values > 0)).all():
            raise SdvarError(
                f"{path} is damaged: {name}{_SCALE_SUFFIX} holds scales that are not positive "
                "numbers; convert the checkpoint again"
            )
        return values

    return LazyArray(scales.shape, scales.dtype, read)
