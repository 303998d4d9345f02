"""GroupNorm and the SiLU behind it: sums of the channels, then the result.

The sums are kept a channel and part of the cells, in a fixed order, so that none depends on the
order in which programs finish. Of small maps whoever normalises adds up those of its channels'
groups itself, and nothing waits in between. Of large ones a kernel in between makes of them what
each channel is multiplied by and what is added, so that the many programs of the last need not.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.runtime.dependent_launch import launch_next

_CHANNELS = 32
"""Channels of a program."""

_FEW_CELLS = 1024
"""Up to so many cells a program takes few, so that there are programs enough."""

_MOST_PROGRAMS = 64
"""Programs that the cells of one picture are spread over."""

_MANY_CELLS = 64 * 64
"""From so many cells on factors are made by a kernel of their own."""


def _block(cells: int) -> int:
    """Cells that a program reads at a time."""
    return 64 if cells <= _FEW_CELLS else 128


def _share(cells: int) -> int:
    """Cells of a program: whole blocks."""
    block = _block(cells)
    return block * pl.cdiv(pl.cdiv(cells, block), _MOST_PROGRAMS)


def _sums_kernel(x_ref: Any, sums_ref: Any, *, cells: int, share: int, interpret: bool) -> None:
    """Sums of the channels and of their squares over a program's cells."""
    part, image = pl.program_id(1), pl.program_id(2)
    image = image + launch_next(interpret=interpret)
    columns = pl.ds(pl.program_id(0) * _CHANNELS, _CHANNELS)
    block = _block(cells)

    def add(i: Any, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        start = part * share + i * block
        inside = (start + jnp.arange(block) < cells)[:, None]
        x = plt.load(x_ref.at[image, pl.ds(start, block), columns], mask=inside, other=0.0)
        x = x.astype(jnp.float32)
        return sums[0] + x, sums[1] + x * x

    zeros = jnp.zeros((block, _CHANNELS), jnp.float32)
    total, squares = jax.lax.fori_loop(0, share // block, add, (zeros, zeros))
    sums_ref[image, part, 0, columns] = jnp.sum(total, axis=0)
    sums_ref[image, part, 1, columns] = jnp.sum(squares, axis=0)


def _normalize_kernel(
    x_ref: Any,
    sums_ref: Any,
    scale_ref: Any,
    bias_ref: Any,
    out_ref: Any,
    *,
    cells: int,
    share: int,
    group: int,
    eps: float,
    silu: bool,
    interpret: bool,
) -> None:
    own, image = pl.program_id(1) * share, pl.program_id(2) + launch_next(interpret=interpret)
    first = pl.program_id(0) * _CHANNELS
    columns = pl.ds(first, _CHANNELS)
    block = _block(cells)
    parts, channels = sums_ref.shape[1], sums_ref.shape[3]

    # All channels of the groups that this program's channels belong to, from the first group on.
    own_groups = (first + jnp.arange(_CHANNELS)) // group
    begin = first // group * group
    neighbours = begin + jnp.arange(pl.next_power_of_2(_CHANNELS + 2 * (group - 1)))
    same_group = own_groups[:, None] == (neighbours // group)[None, :]
    every_part = jnp.arange(pl.next_power_of_2(parts))
    known = (every_part < parts)[:, None] & (neighbours < channels)[None, :]

    def mean(which: int) -> jax.Array:
        place = (image, every_part[:, None], jnp.int32(which), neighbours[None, :])
        sums = jnp.sum(plt.load(sums_ref.at[place], mask=known, other=0.0), axis=0)
        return jnp.sum(jnp.where(same_group, sums[None, :], 0.0), axis=1) / (cells * group)

    average = mean(0)
    variance = jnp.maximum(mean(1) - average * average, 0.0)
    factor = jax.lax.rsqrt(variance + eps) * scale_ref[columns].astype(jnp.float32)
    offset = bias_ref[columns].astype(jnp.float32) - average * factor

    def normalize(i: Any, _: Any) -> None:
        start = own + i * block
        inside = (start + jnp.arange(block) < cells)[:, None]
        place = (image, pl.ds(start, block), columns)
        x = plt.load(x_ref.at[place], mask=inside, other=0.0).astype(jnp.float32)
        out = x * factor[None] + offset[None]
        if silu:
            out = out * jax.nn.sigmoid(out)
        plt.store(out_ref.at[place], out.astype(out_ref.dtype), mask=inside)

    jax.lax.fori_loop(0, share // block, normalize, None)


def _factors_kernel(
    sums_ref: Any,
    scale_ref: Any,
    bias_ref: Any,
    factors_ref: Any,
    *,
    cells: int,
    group: int,
    eps: float,
    interpret: bool,
) -> None:
    """What a group's channels are multiplied by, and what is added to them."""
    image = pl.program_id(1) + launch_next(interpret=interpret)
    parts = sums_ref.shape[1]
    every_part = jnp.arange(pl.next_power_of_2(parts))
    member = jnp.arange(pl.next_power_of_2(group))
    channels = pl.program_id(0) * group + member
    known = (every_part < parts)[:, None] & (member < group)[None, :]

    def mean(which: int) -> jax.Array:
        place = (image, every_part[:, None], jnp.int32(which), channels[None, :])
        return jnp.sum(plt.load(sums_ref.at[place], mask=known, other=0.0)) / (cells * group)

    average = mean(0)
    variance = jnp.maximum(mean(1) - average * average, 0.0)
    own = member < group
    scale = plt.load(scale_ref.at[channels], mask=own, other=0.0).astype(jnp.float32)
    bias = plt.load(bias_ref.at[channels], mask=own, other=0.0).astype(jnp.float32)
    factor = jax.lax.rsqrt(variance + eps) * scale
    plt.store(factors_ref.at[image, jnp.int32(0), channels], factor, mask=own)
    plt.store(factors_ref.at[image, jnp.int32(1), channels], bias - average * factor, mask=own)


def _scale_kernel(
    x_ref: Any, factors_ref: Any, out_ref: Any, *, cells: int, silu: bool, interpret: bool
) -> None:
    """Factors and offsets of the channels, and SiLU."""
    image = pl.program_id(2) + launch_next(interpret=interpret)
    columns = pl.ds(pl.program_id(0) * _CHANNELS, _CHANNELS)
    block = _block(cells)
    start = pl.program_id(1) * block
    inside = (start + jnp.arange(block) < cells)[:, None]
    place = (image, pl.ds(start, block), columns)
    x = plt.load(x_ref.at[place], mask=inside, other=0.0).astype(jnp.float32)
    out = x * factors_ref[image, 0, columns][None] + factors_ref[image, 1, columns][None]
    if silu:
        out = out * jax.nn.sigmoid(out)
    plt.store(out_ref.at[place], out.astype(out_ref.dtype), mask=inside)


@functools.partial(jax.jit, static_argnames=("groups", "eps", "silu", "interpret"))
def group_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    groups: int,
    eps: float,
    silu: bool,
    interpret: bool = False,
) -> jax.Array:
    """GroupNorm over the cells and the channels of a group, and SiLU where asked for.

    Statistics are float32, the variance in one pass: mean of squares less square of the mean.

    Args:
      x: [batch, height, width, channels]; channels a multiple of 32.
      scale: [channels].
      bias: [channels].
      groups: of the channels.
      eps: added to the variance.
      silu: apply it.
      interpret: run without an accelerator, for tests.

    Returns:
      As x.
    """
    batch, height, width, channels = x.shape
    chex.assert_is_divisible(channels, _CHANNELS)
    chex.assert_is_divisible(channels, groups)
    chex.assert_shape([scale, bias], (channels,))
    cells, group = height * width, channels // groups
    x = x.reshape(batch, cells, channels)
    share = _share(cells)
    parts = pl.cdiv(cells, share)

    # Programs that run side by side read the channels of the same cells, which lie side by side.
    grid = (channels // _CHANNELS, parts, batch)
    params = plt.CompilerParams(num_warps=8 if cells < _MANY_CELLS else 4, num_stages=2)
    sums = pl.pallas_call(
        functools.partial(_sums_kernel, cells=cells, share=share, interpret=interpret),
        grid=grid,
        out_shape=jax.ShapeDtypeStruct((batch, parts, 2, channels), jnp.float32),
        compiler_params=params,
        interpret=interpret,
        name="group_norm_sums",
    )(x)
    name = "group_norm_silu" if silu else "group_norm"
    made = jax.ShapeDtypeStruct(x.shape, x.dtype)
    if cells < _MANY_CELLS:
        out = pl.pallas_call(
            functools.partial(
                _normalize_kernel,
                cells=cells,
                share=share,
                group=group,
                eps=eps,
                silu=silu,
                interpret=interpret,
            ),
            grid=grid,
            out_shape=made,
            compiler_params=params,
            interpret=interpret,
            name=name,
        )(x, sums, scale, bias)
        return out.reshape(batch, height, width, channels)
    factors = pl.pallas_call(
        functools.partial(_factors_kernel, cells=cells, group=group, eps=eps, interpret=interpret),
        grid=(groups, batch),
        out_shape=jax.ShapeDtypeStruct((batch, 2, channels), jnp.float32),
        compiler_params=plt.CompilerParams(num_warps=1, num_stages=1),
        interpret=interpret,
        name="group_norm_factors",
    )(sums, scale, bias)
    out = pl.pallas_call(
        functools.partial(_scale_kernel, cells=cells, silu=silu, interpret=interpret),
        grid=(channels // _CHANNELS, pl.cdiv(cells, _block(cells)), batch),
        out_shape=made,
        compiler_params=params,
        interpret=interpret,
        name=name,
    )(x, factors)
    return out.reshape(batch, height, width, channels)
