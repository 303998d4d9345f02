"""A resize of small square maps in one kernel: every cell is a weighted sum of few others.

The matrices of ``models.resize`` are mostly zeros. Each row is read as its few taps, so that a cell
costs taps times taps reads instead of two products and their transposes.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.runtime.dependent_launch import launch_next

_CELLS = 16
"""Cells of a program."""


def taps_of(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The places and values of what is not zero in each row of a matrix.

    Args:
      matrix: [out, in].

    Returns:
      int32 and float32 [out, taps]; rows with fewer than the most are filled up with zeros.
    """
    used = matrix != 0.0
    most = int(used.sum(axis=1).max())
    order = np.argsort(~used, axis=1, kind="stable")[:, :most]
    return order.astype(np.int32), np.take_along_axis(matrix, order, axis=1)


def _kernel(
    maps_ref: Any,
    places_ref: Any,
    values_ref: Any,
    out_ref: Any,
    *,
    source: int,
    target: int,
    taps: int,
    interpret: bool,
) -> None:
    image = pl.program_id(0) + launch_next(interpret=interpret)
    first = pl.program_id(1) * _CELLS
    inside = first + jnp.arange(_CELLS) < target * target
    cells = jnp.where(inside, first + jnp.arange(_CELLS), 0)
    row, column = cells // target, cells % target
    channels = jnp.arange(maps_ref.shape[2])
    total = jnp.zeros((_CELLS, channels.size), jnp.float32)
    across = [
        (plt.load(places_ref.at[column, tap]), plt.load(values_ref.at[column, tap]))
        for tap in range(taps)
    ]

    def add_row(tap: Any, total: jax.Array) -> jax.Array:
        start = plt.load(places_ref.at[row, tap]) * source
        weight = plt.load(values_ref.at[row, tap])
        for place, value in across:
            read = plt.load(maps_ref.at[image, (start + place)[:, None], channels[None]])
            total += (weight * value)[:, None] * read
        return total

    total = jax.lax.fori_loop(0, taps, add_row, total)
    plt.store(out_ref.at[image, pl.ds(first, _CELLS), :], total, mask=inside[:, None])


@functools.partial(jax.jit, static_argnames=("target", "interpret"))
def _resized(
    maps: jax.Array, places: jax.Array, values: jax.Array, *, target: int, interpret: bool
) -> jax.Array:
    batch, source, _, channels = maps.shape
    cells = target * target
    return pl.pallas_call(
        functools.partial(
            _kernel,
            source=source,
            target=target,
            taps=places.shape[1],
            interpret=interpret,
        ),
        grid=(batch, pl.cdiv(cells, _CELLS)),
        out_shape=jax.ShapeDtypeStruct((batch, cells, channels), jnp.float32),
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="resize",
    )(maps.reshape(batch, source * source, channels), places, values)


def resize(maps: jax.Array, matrix: np.ndarray, *, interpret: bool = False) -> jax.Array:
    """The same resize of rows and columns by a matrix, see ``models.resize``.

    Args:
      maps: float32 [batch, source, source, channels]; channels a power of two.
      matrix: [target, source].
      interpret: run without an accelerator, for tests.

    Returns:
      float32 [batch, target, target, channels].
    """
    target, source = matrix.shape
    batch, channels = maps.shape[0], maps.shape[3]
    chex.assert_shape(maps, (batch, source, source, channels))
    chex.assert_type(maps, jnp.float32)
    places, values = taps_of(matrix)
    out = _resized(
        maps, jnp.asarray(places), jnp.asarray(values), target=target, interpret=interpret
    )
    return out.reshape(batch, target, target, channels)
