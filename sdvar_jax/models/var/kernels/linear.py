"""Matrix products of few rows, which cost what reading the weights costs, and of small matrices.

With a handful of rows a product is as fast as its weights come from memory, so what counts is that
every multiprocessor has enough of them under way. Weights of eight bits become floats on their way
to the product, and its columns are scaled behind it. A product with few columns is split along its
contraction into parts; whoever reads it adds them up (``normalize.residual_normalize``), so that
no sum depends on the order in which programs finish.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jax.typing import DTypeLike

from sdvar_jax.runtime.dependent_launch import launch_next

MAX_ROWS = 128
"""From here on arithmetic counts, and the library's products win but for small matrices."""

MAX_ROWS_OF_SMALL = 512
"""Rows up to which small matrices are multiplied here too: bias and GELU come for free."""

SMALL = 2**22
"""Weights of a small matrix."""

_MULTIPROCESSORS = 132


def multiplies_well(rows: int, weights: int) -> bool:
    """Whether products of so many rows and weights are faster here than the library's."""
    return rows <= (MAX_ROWS_OF_SMALL if weights <= SMALL else MAX_ROWS)


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a product is cut up; the defaults won on an H100 (``docs/performance.md``).

    Attributes:
      block_m: rows that a program makes; None for all.
      block_n: columns that a program makes.
      block_k: rows of the kernel that are read at a time.
      warps: of a program.
      stages: reads under way.
    """

    block_m: int | None = None
    block_n: int = 64
    block_k: int = 128
    warps: int = 4
    stages: int = 6

    @classmethod
    def of(cls, width: int, columns: int, rows: int) -> Tiling:
        """For products [rows, width] @ [width, columns]: reads must fit in shared memory."""
        if rows > MAX_ROWS:
            return cls(block_m=64, block_n=128 if columns % 128 == 0 else 64, block_k=64, stages=4)
        programs = columns // 64
        return cls(
            # Narrower programs where half of the multiprocessors would have nothing to do.
            block_n=32 if 2 * programs <= _MULTIPROCESSORS else 64,
            block_k=128 if width % 128 == 0 and rows <= 64 else 64,
            # A second round waits for the first, unless both fit on a multiprocessor.
            stages=6 if programs <= _MULTIPROCESSORS else 3,
        )

    @classmethod
    def of_parts(cls, width: int, columns: int, rows: int) -> Tiling:
        """For the same product in parts, which keep all multiprocessors busy themselves."""
        tiling = cls.of(width, columns, rows)
        if rows > MAX_ROWS:
            return tiling
        return dataclasses.replace(tiling, block_n=cls.block_n, stages=cls.stages)

    def parts(self, width: int, columns: int, rows: int) -> int:
        """Into how many parts to split.

        With few rows a program a multiprocessor at most, no second round; with more, parts that
        are long enough.
        """
        blocks = width // self.block_k
        programs = columns // self.block_n
        if self.block_m is None:
            most = max(_MULTIPROCESSORS // programs, 1)
        else:
            programs *= rows // self.block_m
            most = max(min(2 * _MULTIPROCESSORS // programs, width // 512, 4), 1)
        return max(parts for parts in range(1, most + 1) if blocks % parts == 0)


def padded_rows(rows: int) -> int:
    """Rows that a product of ``rows`` rows is computed with.

    A power of two, at least 16; beyond ``MAX_ROWS`` a multiple of 64.
    """
    return max(16, 1 << (rows - 1).bit_length()) if rows <= MAX_ROWS else -(-rows // 64) * 64


def _product(x_ref: Any, w_ref: Any, block_k: int, interpret: bool) -> jax.Array:
    """The product of the blocks, block_k at a time, float32; int8 values become x's dtype."""

    def add(i: Any, total: jax.Array) -> jax.Array:
        part = pl.ds(i * block_k, block_k)
        return total + plt.dot(x_ref[:, part], w_ref[part, :].astype(x_ref.dtype))

    zero = launch_next(interpret=interpret).astype(jnp.float32)
    zeros = jnp.full((x_ref.shape[0], w_ref.shape[1]), zero)
    return jax.lax.fori_loop(0, w_ref.shape[0] // block_k, add, zeros)


def _scaled(out: jax.Array, scale_ref: Any = None) -> jax.Array:
    """The product's columns times the scale of int8 values; as it is without one."""
    return out if scale_ref is None else out * scale_ref[...][None, :]


def _linear_kernel(
    x_ref: Any,
    w_ref: Any,
    *operands: Any,
    biased: bool,
    gelu: bool,
    block_k: int,
    written: int | None,
    interpret: bool,
) -> None:
    refs = list(operands)
    bias_ref: Any = refs.pop(0) if biased else None
    *scale_ref, out_ref = refs
    out = _scaled(_product(x_ref, w_ref, block_k, interpret), *scale_ref)
    if biased:
        out = out + bias_ref[...].astype(jnp.float32)[None, :]
    if gelu:
        out = jax.nn.gelu(out, approximate=True)
    out = out.astype(out_ref.dtype)
    if written is None:
        out_ref[...] = out
        return
    block_m = x_ref.shape[0]
    inside = pl.program_id(0) * block_m + jnp.arange(block_m) < written
    plt.store(out_ref.at[:, :], out, mask=inside[:, None])


def _parts_kernel(x_ref: Any, w_ref: Any, *refs: Any, block_k: int, interpret: bool) -> None:
    *scale_ref, out_ref = refs
    out_ref[...] = _scaled(_product(x_ref, w_ref, block_k, interpret), *scale_ref)[None]


def _check_kernel(kernel: jax.Array, scale: jax.Array | None, width: int) -> None:
    chex.assert_shape(kernel, (width, None))
    if scale is None:
        assert jnp.issubdtype(kernel.dtype, jnp.floating), "an int8 kernel needs its scale"
    else:
        chex.assert_type([kernel, scale], [jnp.int8, jnp.float32])
        chex.assert_shape(scale, (kernel.shape[1],))


@functools.partial(jax.jit, static_argnames=("gelu", "out_dtype", "written", "tiling", "interpret"))
def linear(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None,
    scale: jax.Array | None = None,
    *,
    gelu: bool = False,
    out_dtype: DTypeLike | None = None,
    written: int | None = None,
    tiling: Tiling | None = None,
    interpret: bool = False,
) -> jax.Array:
    """The product x @ kernel, its bias and GELU (tanh form) where asked for.

    Args:
      x: [rows, width]; rows as ``padded_rows`` gives them.
      kernel: [width, columns] in x's dtype, or int8.
      bias: [columns], or None.
      scale: of the columns of an int8 kernel, float32 [columns]; else None.
      gelu: apply it.
      out_dtype: of the result; None for x's.
      written: rows of the result, the first ones; None for all.
      tiling: how it is cut up; None for what suits the shapes.
      interpret: run without an accelerator, for tests.

    Returns:
      [written, columns].
    """
    rows, width = x.shape
    columns = kernel.shape[1]
    tiling = Tiling.of(width, columns, rows) if tiling is None else tiling
    _check_kernel(kernel, scale, width)
    chex.assert_is_divisible(width, tiling.block_k)
    chex.assert_is_divisible(columns, tiling.block_n)
    vectors = [vector for vector in (bias, scale) if vector is not None]  # [columns] each
    chex.assert_shape(vectors, (columns,))
    block_m = tiling.block_m or rows
    chex.assert_is_divisible(rows, block_m)
    return pl.pallas_call(
        functools.partial(
            _linear_kernel,
            biased=bias is not None,
            gelu=gelu,
            block_k=tiling.block_k,
            written=written,
            interpret=interpret,
        ),
        grid=(rows // block_m, columns // tiling.block_n),
        in_specs=[
            pl.BlockSpec((block_m, width), lambda m, n: (m, 0)),
            pl.BlockSpec((width, tiling.block_n), lambda m, n: (0, n)),
            *[pl.BlockSpec((tiling.block_n,), lambda m, n: (n,))] * len(vectors),
        ],
        out_specs=pl.BlockSpec((block_m, tiling.block_n), lambda m, n: (m, n)),
        out_shape=jax.ShapeDtypeStruct(
            (rows if written is None else written, columns), out_dtype or x.dtype
        ),
        compiler_params=plt.CompilerParams(num_warps=tiling.warps, num_stages=tiling.stages),
        interpret=interpret,
        name="linear_gelu" if gelu else "linear",
    )(x, kernel, *vectors)


@functools.partial(jax.jit, static_argnames=("parts", "tiling", "interpret"))
def linear_parts(
    x: jax.Array,
    kernel: jax.Array,
    scale: jax.Array | None = None,
    *,
    parts: int | None = None,
    tiling: Tiling | None = None,
    interpret: bool = False,
) -> jax.Array:
    """The product x @ kernel as sums that are still to be added up.

    Args:
      x: as in ``linear``.
      kernel: likewise.
      scale: likewise.
      parts: how many; a divisor of the width's blocks. None for what suits the shapes.
      tiling: likewise.
      interpret: run without an accelerator, for tests.

    Returns:
      float32 [parts, rows, columns].
    """
    rows, width = x.shape
    columns = kernel.shape[1]
    tiling = Tiling.of_parts(width, columns, rows) if tiling is None else tiling
    parts = tiling.parts(width, columns, rows) if parts is None else parts
    _check_kernel(kernel, scale, width)
    chex.assert_is_divisible(width, tiling.block_k * parts)
    chex.assert_is_divisible(columns, tiling.block_n)
    share = width // parts
    scales = () if scale is None else (scale,)
    block_m = tiling.block_m or rows
    chex.assert_is_divisible(rows, block_m)
    return pl.pallas_call(
        functools.partial(_parts_kernel, block_k=tiling.block_k, interpret=interpret),
        grid=(rows // block_m, columns // tiling.block_n, parts),
        in_specs=[
            pl.BlockSpec((block_m, share), lambda m, n, p: (m, p)),
            pl.BlockSpec((share, tiling.block_n), lambda m, n, p: (p, n)),
            *[pl.BlockSpec((tiling.block_n,), lambda m, n, p: (n,))] * len(scales),
        ],
        out_specs=pl.BlockSpec((1, block_m, tiling.block_n), lambda m, n, p: (p, m, n)),
        out_shape=jax.ShapeDtypeStruct((parts, rows, columns), jnp.float32),
        compiler_params=plt.CompilerParams(num_warps=tiling.warps, num_stages=tiling.stages),
        interpret=interpret,
        name="linear_parts",
    )(x, kernel, *scales)
