"""How one PyTorch tensor becomes one Flax parameter, and back. All transforms are invertible."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Transform:
    """An invertible change of layout; no value is changed.

    Both directions return views where NumPy can, so nothing is copied until it is written.

    Attributes:
      name: for messages.
      to_flax: PyTorch layout -> Flax layout.
      to_torch: Flax layout -> PyTorch layout.
    """

    name: str
    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]

    def torch_shape(self, flax_shape: Shape) -> Shape:
        """The PyTorch shape that gives ``flax_shape``."""
        return self.to_torch(_without_memory(flax_shape)).shape


def _without_memory(shape: Shape) -> np.ndarray:
    return np.broadcast_to(np.zeros((), np.int8), shape)


IDENTITY = Transform("identity", lambda x: x, lambda x: x)

LINEAR = Transform("linear [out, in] -> [in, out]", lambda x: x.T, lambda x: x.T)

CONV = Transform(
    "convolution [out, in, h, w] -> [h, w, in, out]",
    lambda x: x.transpose(2, 3, 1, 0),
    lambda x: x.transpose(3, 2, 0, 1),
)


def drop_ones(before: int, after: int = 0) -> Transform:
    """Drops ``before`` leading and ``after`` trailing axes of length one."""

    def to_flax(x: np.ndarray) -> np.ndarray:
        return x.reshape(x.shape[before : x.ndim - after])

    def to_torch(x: np.ndarray) -> np.ndarray:
        return x.reshape((1,) * before + x.shape + (1,) * after)

    return Transform(f"drop {before} leading and {after} trailing ones", to_flax, to_torch)
