"""Where arrays of training live: the batch is split over the data axis, all else is everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from sdvar_jax.config.validation import require

DATA_AXIS = "data"


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, "data", over ``devices`` (None: all)."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (DATA_AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Axis ``axis`` of an array is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, DATA_AXIS))


def check_batch(mesh: Mesh, batch_size: int) -> None:
    """Raises ``SdvarError`` where a batch cannot be split evenly over the mesh."""
    devices = mesh.shape[DATA_AXIS]
    require(
        batch_size % devices == 0,
        f"a batch of {batch_size} cannot be split over {devices} devices; choose a multiple",
    )


def split_batch(tree: Any, mesh: Mesh) -> Any:
    """Tells the compiler that the first axis of every array is split over the devices."""
    return jax.lax.with_sharding_constraint(tree, batch_sharding(mesh))
