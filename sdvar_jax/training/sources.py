"""Where the batches of a run come from: arrays on the device, or a loader on the host."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sdvar_jax.training.sharding import batch_sharding, replicated

TraineeBatch = Mapping[str, jax.Array]


class BatchSource(abc.ABC):
    """Gives batches to the compiled steps.

    A source may hold everything on the device (``resident``) and draw inside the program, or make
    batches on the host (``fetch``).
    """

    @abc.abstractmethod
    def resident(self, mesh: Mesh) -> Any:
        """Arrays that stay on every device, handed to every program call; None for none."""

    @abc.abstractmethod
    def fetch(self, steps: int, mesh: Mesh) -> Any:
        """The batches of the next ``steps`` steps, [steps, batch, ...] each; None if drawn."""

    @abc.abstractmethod
    def batch(self, resident: Any, fetched: Any, key: jax.Array) -> TraineeBatch:
        """One batch, traced: from what is resident, or what was fetched for this step."""

    def get_state(self) -> dict[str, Any]:
        """Where the source stands, for JSON; drawn batches follow from the step alone."""
        return {}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``get_state`` stood."""
        del state


class ResidentSource(BatchSource):
    """A set that fits on the device; batches are drawn there by weight.

    Each batch is a stratified draw: picture number i of it comes from the i-th of ``batch_size``
    equal shares of the total weight, so heavy and light pictures come as often as their weights
    say with little chance about it.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray | jax.Array],
        batch_size: int,
        weights: np.ndarray | None = None,
    ) -> None:
        """Takes the set.

        Args:
          arrays: name -> [n, ...], all of the same n.
          batch_size: pictures a batch.
          weights: float [n], how often each is drawn relative to the others; None for evenly.
        """
        sizes = {array.shape[0] for array in arrays.values()}
        if len(sizes) != 1:
            raise ValueError(f"arrays of different lengths: {sorted(sizes)}")
        (self._size,) = sizes
        weights = np.ones(self._size) if weights is None else np.asarray(weights, np.float64)
        if weights.shape != (self._size,) or weights.min() < 0 or weights.sum() <= 0:
            raise ValueError("one weight a picture, none negative and not all zero")
        order = np.cumsum(weights) / weights.sum()
        self._arrays = {**arrays, "cumulative": order.astype(np.float32)}
        self._batch_size = batch_size

    def resident(self, mesh: Mesh) -> Any:
        """The set and its cumulative weights."""
        return {
            name: jax.device_put(array, replicated(mesh)) for name, array in self._arrays.items()
        }

    def fetch(self, steps: int, mesh: Mesh) -> Any:
        """Nothing comes from the host."""
        del steps, mesh

    def batch(self, resident: Any, fetched: Any, key: jax.Array) -> TraineeBatch:
        """A stratified draw."""
        del fetched
        uniform = jax.random.uniform(key, (self._batch_size,))
        places = (jnp.arange(self._batch_size) + uniform) / self._batch_size
        indices = jnp.searchsorted(resident["cumulative"], places, side="right")
        indices = jnp.minimum(indices, self._size - 1)
        return {
            name: jnp.take(array, indices, axis=0)
            for name, array in resident.items()
            if name != "cumulative"
        }


class LoaderSource(BatchSource):
    """Batches from a grain iterator (``sdvar_jax.data.make_loader``)."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def resident(self, mesh: Mesh) -> Any:
        """Nothing stays on the device."""
        del mesh

    def fetch(self, steps: int, mesh: Mesh) -> Any:
        """Stacks the next batches and puts them on the devices, split over the data axis."""
        batches = [next(self._iterator) for _ in range(steps)]
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
        return jax.device_put(stacked, batch_sharding(mesh, axis=1))

    def batch(self, resident: Any, fetched: Any, key: jax.Array) -> TraineeBatch:
        """The batch fetched for this step."""
        del resident, key
        return fetched

    def get_state(self) -> dict[str, Any]:
        """The iterator's."""
        return dict(self._iterator.get_state())

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Moves the iterator."""
        self._iterator.set_state(dict(state))
