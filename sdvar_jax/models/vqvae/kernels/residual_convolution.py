"""A residual 3x3 convolution of small maps of few channels, float32, in one kernel."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.runtime.dependent_launch import launch_next

_CELLS = 16
"""Cells of a program, side by side in a row of the map."""


def _kernel(
    maps_ref: Any,
    filter_ref: Any,
    bias_ref: Any,
    out_ref: Any,
    *,
    side: int,
    ratio: float,
    interpret: bool,
) -> None:
    image = pl.program_id(0) + launch_next(interpret=interpret)
    row = pl.program_id(1)
    columns = pl.program_id(2) * _CELLS + jnp.arange(_CELLS)
    channels = jnp.arange(maps_ref.shape[3])

    def read(row: Any, columns: Any) -> jax.Array:
        """Cells of a row, zeros outside the map: [_CELLS, channels]."""
        inside = (columns >= 0) & (columns < side) & (row >= 0) & (row < side)
        place = (
            image,
            jnp.clip(row, 0, side - 1),
            jnp.clip(columns, 0, side - 1)[:, None],
            channels[None],
        )
        return plt.load(maps_ref.at[place], mask=inside[:, None], other=0.0)

    total = jnp.zeros((_CELLS, channels.size), jnp.float32)
    for down in range(3):
        for right in range(3):
            total += plt.dot(
                read(row + down - 1, columns + right - 1),
                filter_ref[down, right],
                precision=jax.lax.Precision.HIGHEST,
            )
    total = (1.0 - ratio) * read(row, columns) + ratio * (total + bias_ref[...][None])
    place = (image, row, columns[:, None], channels[None])
    plt.store(out_ref.at[place], total, mask=(columns < side)[:, None])


@functools.partial(jax.jit, static_argnames=("ratio", "interpret"))
def residual_convolution(
    maps: jax.Array, filters: jax.Array, bias: jax.Array, *, ratio: float, interpret: bool = False
) -> jax.Array:
    """The sum (1 - ratio) * maps + ratio * (maps convolved with 3x3 filters, plus the bias).

    Args:
      maps: float32 [batch, side, side, channels]; channels a power of two, at least 16. Outside
        they are zero.
      filters: float32 [3, 3, channels, channels], inputs before outputs.
      bias: float32 [channels].
      ratio: of the convolution.
      interpret: run without an accelerator, for tests.

    Returns:
      As maps.
    """
    batch, side, _, channels = maps.shape
    chex.assert_shape(maps, (batch, side, side, channels))
    chex.assert_shape(filters, (3, 3, channels, channels))
    chex.assert_shape(bias, (channels,))
    chex.assert_type([maps, filters, bias], jnp.float32)
    return pl.pallas_call(
        functools.partial(_kernel, side=side, ratio=ratio, interpret=interpret),
        grid=(batch, side, pl.cdiv(side, _CELLS)),
        out_shape=jax.ShapeDtypeStruct(maps.shape, jnp.float32),
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="residual_convolution",
    )(maps, filters, bias)
