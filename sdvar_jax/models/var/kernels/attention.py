"""Attention of a window over the KV cache, in one kernel.

It adds the projection's biases, normalises and scales q and k, writes the window's keys and values
into the cache, and attends over the committed prefix in the cache and the window itself. Every
program reads the window's keys from the projection and not from the cache, so no program waits for
another.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jax.typing import DTypeLike

from sdvar_jax.models.var.attention import head_scale, l2_normalize, plain_scale
from sdvar_jax.runtime.dependent_launch import launch_next

LOG2_E = math.log2(math.e)
"""Scores are taken as powers of two."""

MASKED = -1e30
"""Score of a key that a query does not see."""

# From here on larger tiles win: there is work for every multiprocessor anyway.
_MANY_QUERIES = 2**17


SoftmaxState = tuple[jax.Array, jax.Array, jax.Array]
"""Highest score so far [queries], sum of the weights [queries], weighted values [queries, dim]."""


def empty_softmax(queries: int, head_dim: int) -> SoftmaxState:
    """The state before the first keys."""
    return (
        jnp.full((queries,), MASKED, jnp.float32),
        jnp.zeros((queries,), jnp.float32),
        jnp.zeros((queries, head_dim), jnp.float32),
    )


def add_to_softmax(
    state: SoftmaxState, scores: jax.Array, values: Callable[[], jax.Array], dtype: DTypeLike
) -> SoftmaxState:
    """The state with one tile of keys more, in one pass (FlashAttention, algorithm 1).

    Args:
      state: so far.
      scores: of the tile as powers of two, float32 [queries, keys].
      values: reads those of the tile, [keys, dim].
      dtype: that weights are rounded to.
    """
    highest, total, out = state
    new_highest = jnp.maximum(highest, jnp.max(scores, axis=-1))
    weights = jnp.exp2(scores - new_highest[:, None])
    decay = jnp.exp2(highest - new_highest)
    total = total * decay + jnp.sum(weights, axis=-1)
    out = out * decay[:, None] + plt.dot(weights.astype(dtype), values())
    return new_highest, total, out


def read_window(
    qkv_ref: Any, row: Any, start: Any, size: int, length: int, columns: Any
) -> jax.Array:
    """Columns of a batch row's window, positions ``start``.. of ``length``, zeros behind it."""
    inside = (start + jnp.arange(size) < length)[:, None]
    reference = qkv_ref.at[pl.ds(row * length + start, size), columns]
    return plt.load(reference, mask=inside, other=0.0)


def cached_keys(keys: jax.Array, normalized: bool, dtype: DTypeLike) -> jax.Array:
    """Projected keys as the cache holds them."""
    return l2_normalize(keys).astype(dtype) if normalized else keys


def cached_values(values: jax.Array, bias: jax.Array, dtype: DTypeLike) -> jax.Array:
    """Projected values as the cache holds them, their bias [1, dim] in float32."""
    return (values.astype(jnp.float32) + bias).astype(dtype)


def _attention_kernel(
    qkv_ref: Any,
    q_bias_ref: Any,
    v_bias_ref: Any,
    *refs: Any,
    length: int,
    offset: int,
    heads: int,
    head_dim: int,
    block_q: int,
    block_k: int,
    interpret: bool,
) -> None:
    *inputs, out_ref, keys_ref, values_ref = refs
    old_keys_ref: Any = None
    old_values_ref: Any = None
    if offset > 0:
        *inputs, old_keys_ref, old_values_ref = inputs
    *scale_ref, limits_ref = inputs
    row = pl.program_id(0) + launch_next(interpret=interpret)
    head, tile = pl.program_id(1), pl.program_id(2)
    dtype = out_ref.dtype
    width = heads * head_dim
    scale = head_scale(scale_ref[0][head]) if scale_ref else plain_scale(head_dim)

    def window(part: int, start: Any, size: int) -> jax.Array:
        """Rows ``start``.. of q (0), k (1) or v (2) of this head."""
        columns = pl.ds(part * width + head * head_dim, head_dim)
        return read_window(qkv_ref, row, start, size, length, columns)

    own_columns = pl.ds(head * head_dim, head_dim)
    q_bias = q_bias_ref[own_columns].astype(jnp.float32)[None, :]
    v_bias = v_bias_ref[own_columns].astype(jnp.float32)[None, :]

    def window_keys(start: Any, size: int) -> jax.Array:
        return cached_keys(window(1, start, size), bool(scale_ref), dtype)

    def window_values(start: Any, size: int) -> jax.Array:
        return cached_values(window(2, start, size), v_bias, dtype)

    first = tile * block_q
    q = window(0, first, block_q).astype(jnp.float32) + q_bias
    q = ((l2_normalize(q) if scale_ref else q) * scale).astype(dtype)
    limits = plt.load(
        limits_ref.at[pl.ds(first, block_q)], mask=first + jnp.arange(block_q) < length, other=0
    )

    # The window's own keys and values go into the cache, each by the program of its tile.
    inside = (first + jnp.arange(block_q) < length)[:, None]
    place = (row, pl.ds(offset + first, block_q), head, slice(None))
    plt.store(keys_ref.at[place], window_keys(first, block_q), mask=inside)
    plt.store(values_ref.at[place], window_values(first, block_q), mask=inside)

    def attend(keys: Any, values: Any, seen: Any, state: Any) -> Any:
        scores = plt.dot(q, keys, trans_b=True) * LOG2_E  # [block_q, block_k]
        scores = jnp.where(seen, scores, MASKED)
        return add_to_softmax(state, scores, lambda: values, dtype)

    def cached_tile(i: Any, state: Any) -> Any:
        start = i * block_k
        inside = start + jnp.arange(block_k) < offset
        place = (row, pl.ds(start, block_k), head, slice(None))
        keys = plt.load(old_keys_ref.at[place], mask=inside[:, None], other=0.0)
        values = plt.load(old_values_ref.at[place], mask=inside[:, None], other=0.0)
        return attend(keys, values, inside[None, :], state)

    def window_tile(i: Any, state: Any) -> Any:
        start = i * block_k
        seen = (start + jnp.arange(block_k))[None, :] < limits[:, None]
        return attend(window_keys(start, block_k), window_values(start, block_k), seen, state)

    state = empty_softmax(block_q, head_dim)
    if offset > 0:
        state = jax.lax.fori_loop(0, pl.cdiv(offset, block_k), cached_tile, state)
    state = jax.lax.fori_loop(0, pl.cdiv(length, block_k), window_tile, state)
    _, total, out = state
    plt.store(
        out_ref.at[pl.ds(row * length + first, block_q), own_columns],
        (out / total[:, None]).astype(dtype),
        mask=inside,
    )


def check_arguments(
    qkv: jax.Array,
    q_bias: jax.Array,
    v_bias: jax.Array,
    scale_mul: jax.Array | None,
    keys: jax.Array,
    values: jax.Array,
) -> None:
    """Asserts the shapes that ``cached_attention`` tells of."""
    heads, head_dim = keys.shape[2:]
    width = heads * head_dim
    chex.assert_shape(qkv, (None, 3 * width))
    chex.assert_shape([q_bias, v_bias], (width,))
    if scale_mul is not None:
        chex.assert_shape(scale_mul, (heads,))
    chex.assert_equal_shape([keys, values])


def block_of(length: int, most: int) -> int:
    """Rows of a tile for ``length``: a power of two from 16 to ``most``."""
    return min(most, max(16, 1 << (length - 1).bit_length()))


@functools.partial(
    jax.jit,
    static_argnames=(
        "rows",
        "offset",
        "block_q",
        "block_k",
        "warps",
        "stages",
        "interpret",
    ),
)
def cached_attention(
    qkv: jax.Array,
    q_bias: jax.Array,
    v_bias: jax.Array,
    scale_mul: jax.Array | None,
    limits: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    rows: int,
    offset: int,
    block_q: int | None = None,
    block_k: int | None = None,
    warps: int = 4,
    stages: int = 3,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Attention over the committed prefix and the window.

    Args:
      qkv: the projection without its biases [padded, 3 * width], row b * length + i is position i
        of batch row b; what lies behind rows * length is not read.
      q_bias: [width].
      v_bias: [width]; k has none.
      scale_mul: [heads], see ``head_scale``, where q and k are L2-normalised; else None.
      limits: how many of the window's positions each of them sees, int32 [length].
      keys: cache [at least rows, its length, heads, head_dim]; positions before ``offset`` are
        read, those of the window are written. Of the first window only the shape counts.
      values: as keys.
      rows: of the batch.
      offset: position of the window's first token.
      block_q: queries of a program.
      block_k: keys of a step.
      warps: of a program.
      stages: reads under way.
      interpret: run without an accelerator, for tests.

    Returns:
      [padded, width] in qkv's dtype, and the caches written. Behind the first window they hold
      whatever the memory did, which nothing reads before it is written.
    """
    length = limits.shape[0]
    heads, head_dim = keys.shape[2:]
    padded = qkv.shape[0]
    width = heads * head_dim
    check_arguments(qkv, q_bias, v_bias, scale_mul, keys, values)
    scales = () if scale_mul is None else (scale_mul,)
    # The first window reads no cache, so that zeros need not be written for it.
    before = (keys, values) if offset > 0 else ()
    operands = (qkv, q_bias, v_bias, *scales, limits, *before)
    if block_q is None:
        block_q = block_of(length, 128 if rows * heads * length >= _MANY_QUERIES else 64)
    block_k = block_of(max(length, offset), 64) if block_k is None else block_k
    return pl.pallas_call(
        functools.partial(
            _attention_kernel,
            length=length,
            offset=offset,
            heads=heads,
            head_dim=head_dim,
            block_q=block_q,
            block_k=block_k,
            interpret=interpret,
        ),
        grid=(rows, heads, pl.cdiv(length, block_q)),
        out_shape=[
            jax.ShapeDtypeStruct((padded, width), qkv.dtype),
            jax.ShapeDtypeStruct(keys.shape, keys.dtype),
            jax.ShapeDtypeStruct(values.shape, values.dtype),
        ],
        input_output_aliases={len(operands) - 2: 1, len(operands) - 1: 2} if before else {},
        compiler_params=plt.CompilerParams(num_warps=warps, num_stages=stages),
        interpret=interpret,
        name="cached_attention",
    )(*operands)
