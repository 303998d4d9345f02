"""The residual sum and the adaptive LayerNorm behind it, in one pass over the rows."""

from __future__ import annotations

import functools
import operator
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.runtime.dependent_launch import launch_next


def _row_kernel(
    *operands: Any,
    length: int,
    rows: int,
    width: int,
    eps: float,
    parts: int | None,
    gamma: int | None,
    scale: int | None,
    interpret: bool,
) -> None:
    refs = list(operands)
    x_ref, modulation_ref = refs.pop(0), refs.pop(0)
    next_ref: Any = refs.pop(0) if scale is not None else None
    branch_ref: Any = refs.pop(0) if gamma is not None else None
    bias_ref: Any = refs.pop(0) if gamma is not None else None
    row = pl.program_id(0) + launch_next(interpret=interpret)
    image = jnp.minimum(row // length, rows - 1)
    columns = pl.ds(0, pl.next_power_of_2(width))
    inside = jnp.arange(pl.next_power_of_2(width)) < width

    def read(reference: Any) -> jax.Array:
        return plt.load(reference, mask=inside, other=0.0).astype(jnp.float32)

    # All reads come first, so that they are under way together.
    total = read(x_ref.at[row, columns])
    branch: jax.Array | None = None
    factor: jax.Array | None = None
    weight: jax.Array | None = None
    shift: jax.Array | None = None
    if gamma is not None:
        factor = read(modulation_ref.at[image, jnp.int32(gamma), columns])
        branch = read(bias_ref.at[columns])
        if parts is None:
            branch += read(branch_ref.at[row, columns])
        else:
            read_parts = [
                read(branch_ref.at[jnp.int32(part), row, columns]) for part in range(parts)
            ]
            branch += functools.reduce(operator.add, read_parts)
    if scale is not None:
        weight = read(next_ref.at[image, jnp.int32(scale), columns]) + 1.0
        shift = read(next_ref.at[image, jnp.int32(scale + 2), columns])
    if branch is not None and factor is not None:
        total_ref = refs.pop(0)
        rounded = (total + branch * factor).astype(total_ref.dtype)
        plt.store(total_ref.at[row, columns], rounded, mask=inside)
        total = rounded.astype(jnp.float32)
    if weight is not None and shift is not None:
        h_ref = refs.pop(0)
        mean = jnp.sum(total, axis=0) / width
        centered = jnp.where(inside, total - mean, 0.0)
        variance = jnp.sum(centered * centered, axis=0) / width
        h = centered * jax.lax.rsqrt(variance + eps) * weight + shift
        plt.store(h_ref.at[row, columns], h.astype(h_ref.dtype), mask=inside)


@functools.partial(
    jax.jit,
    static_argnames=("length", "eps", "gamma", "scale", "interpret"),
)
def residual_normalize(
    x: jax.Array,
    modulation: jax.Array,
    *,
    length: int,
    eps: float,
    branch: jax.Array | None = None,
    bias: jax.Array | None = None,
    gamma: int | None = None,
    scale: int | None = None,
    next_modulation: jax.Array | None = None,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """The sum x + (branch + bias) * gamma, and its LayerNorm * (scale + 1) + shift.

    Args:
      x: [padded, width]; row r belongs to image r // length.
      modulation: the block's AdaLN vectors [rows, 6, width].
      length: positions an image.
      eps: of the LayerNorm.
      branch: [padded, width], or float32 [parts, padded, width] to be added up; None for no sum.
      bias: of the branch [width].
      gamma: index of the branch's factor in ``modulation``.
      scale: index of the LayerNorm's scale in ``next_modulation``, its shift lies 2 behind; None
        for no LayerNorm.
      next_modulation: where it is not ``modulation``.
      interpret: run without an accelerator, for tests.

    Returns:
      The sum (x itself without a branch), and the normalised rows or None; in x's dtype.
    """
    padded, width = x.shape
    rows = modulation.shape[0]
    chex.assert_shape(modulation, (rows, 6, width))
    operands = [x, modulation]
    if scale is not None:
        operands.append(modulation if next_modulation is None else next_modulation)
    parts = None
    if branch is not None:
        assert bias is not None
        parts = None if branch.ndim == 2 else branch.shape[0]
        operands += [branch, bias]
    outputs = (branch is not None) + (scale is not None)
    # A program's row is a power of two long; what lies behind the width is never read or written.
    row = pl.next_power_of_2(width)
    results = pl.pallas_call(
        functools.partial(
            _row_kernel,
            length=length,
            rows=rows,
            width=width,
            eps=eps,
            parts=parts,
            gamma=None if branch is None else gamma,
            scale=scale,
            interpret=interpret,
        ),
        grid=(padded,),
        in_specs=[
            pl.BlockSpec((*array.shape[:-1], row), lambda r, n=array.ndim: (0,) * n)
            for array in operands
        ],
        out_specs=[pl.BlockSpec((padded, row), lambda r: (0, 0))] * outputs,
        out_shape=[jax.ShapeDtypeStruct((padded, width), x.dtype)] * outputs,
        compiler_params=plt.CompilerParams(num_warps=8, num_stages=1),
        interpret=interpret,
        name="residual_normalize",
    )(*operands)
    results = list(results)
    total = x if branch is None else results.pop(0)
    return total, results.pop(0) if scale is not None else None
