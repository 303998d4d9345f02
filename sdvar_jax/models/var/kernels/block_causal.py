"""Attention of a window over several scales, whose queries see unlike many keys, in two kernels.

The first writes the window's keys and values into the cache, normalised and with their biases; the
second reads prefix and window there alike, as far as any query of its tile sees, and masks only
the tiles that not all of its queries see. Where all queries see the same, ``cached_attention`` is
faster, which needs no kernel before it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.models.var.attention import head_scale, l2_normalize, plain_scale
from sdvar_jax.models.var.kernels.attention import (
    LOG2_E,
    MASKED,
    add_to_softmax,
    cached_keys,
    cached_values,
    check_arguments,
    empty_softmax,
    read_window,
)
from sdvar_jax.runtime.dependent_launch import launch_next

_WRITTEN = 64
"""Positions of a program that writes keys and values."""


def _write_kernel(
    qkv_ref: Any,
    v_bias_ref: Any,
    *refs: Any,
    length: int,
    offset: int,
    width: int,
    normalized: bool,
    interpret: bool,
) -> None:
    keys_ref, values_ref = refs[-2:]
    row = pl.program_id(0) + launch_next(interpret=interpret)
    first, head = pl.program_id(1) * _WRITTEN, pl.program_id(2)
    dtype, head_dim = keys_ref.dtype, keys_ref.shape[3]
    inside = (first + jnp.arange(_WRITTEN) < length)[:, None]

    def read(part: int) -> jax.Array:
        """This head's columns of k (1) or v (2)."""
        columns = pl.ds(part * width + head * head_dim, head_dim)
        return read_window(qkv_ref, row, first, _WRITTEN, length, columns)

    keys = cached_keys(read(1), normalized, dtype)
    v_bias = v_bias_ref[pl.ds(head * head_dim, head_dim)].astype(jnp.float32)[None, :]
    place = (row, pl.ds(offset + first, _WRITTEN), head, slice(None))
    plt.store(keys_ref.at[place], keys, mask=inside)
    plt.store(values_ref.at[place], cached_values(read(2), v_bias, dtype), mask=inside)


def _attend_kernel(
    qkv_ref: Any,
    q_bias_ref: Any,
    *refs: Any,
    length: int,
    offset: int,
    block_q: int,
    block_k: int,
    interpret: bool,
) -> None:
    *scale_ref, limits_ref, keys_ref, values_ref, out_ref = refs
    row = pl.program_id(0) + launch_next(interpret=interpret)
    head, first = pl.program_id(1), pl.program_id(2) * block_q
    dtype, head_dim = out_ref.dtype, keys_ref.shape[3]
    columns = pl.ds(head * head_dim, head_dim)
    inside = first + jnp.arange(block_q) < length

    q = read_window(qkv_ref, row, first, block_q, length, columns).astype(jnp.float32)
    q = q + q_bias_ref[columns].astype(jnp.float32)[None, :]
    scale = head_scale(scale_ref[0][head]) if scale_ref else plain_scale(head_dim)
    q = ((l2_normalize(q) if scale_ref else q) * (scale * LOG2_E)).astype(dtype)
    limits = plt.load(limits_ref.at[pl.ds(first, block_q)], mask=inside, other=0)
    seen_by_all = offset + jnp.min(jnp.where(inside, limits, length), axis=0)
    seen_by_any = offset + jnp.max(limits, axis=0)

    def attend(i: Any, state: Any, *, masked: bool) -> Any:
        places = i * block_k + jnp.arange(block_k)
        known = (places < offset + length)[:, None] if masked else None
        place = (row, pl.ds(i * block_k, block_k), head, slice(None))
        other = 0.0 if masked else None
        keys = plt.load(keys_ref.at[place], mask=known, other=other)
        scores = plt.dot(q, keys, trans_b=True)  # [block_q, block_k]
        if masked:
            seen = places[None, :] < offset + limits[:, None]
            scores = jnp.where(seen, scores, MASKED)
        return add_to_softmax(
            state,
            scores,
            lambda: plt.load(values_ref.at[place], mask=known, other=other),
            dtype,
        )

    state = empty_softmax(block_q, head_dim)
    whole = seen_by_all // block_k
    state = jax.lax.fori_loop(0, whole, functools.partial(attend, masked=False), state)
    state = jax.lax.fori_loop(
        whole, pl.cdiv(seen_by_any, block_k), functools.partial(attend, masked=True), state
    )
    _, total, out = state
    rows = pl.ds(row * length + first, block_q)
    plt.store(out_ref.at[rows, columns], (out / total[:, None]).astype(dtype), mask=inside[:, None])


def block_causal_attention(
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
    block_q: int = 64,
    block_k: int = 64,
    warps: int = 4,
    stages: int = 3,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """As ``attention.cached_attention``, whose arguments it takes.

    It differs in ``block_q`` and ``block_k``, which are of the second kernel and do not go by the
    window's length.
    """
    check_arguments(qkv, q_bias, v_bias, scale_mul, keys, values)
    length = limits.shape[0]
    heads, head_dim = keys.shape[2:]
    width = heads * head_dim
    before = (keys, values) if offset > 0 else ()
    keys, values = pl.pallas_call(
        functools.partial(
            _write_kernel,
            length=length,
            offset=offset,
            width=width,
            normalized=scale_mul is not None,
            interpret=interpret,
        ),
        grid=(rows, pl.cdiv(length, _WRITTEN), heads),
        out_shape=[
            jax.ShapeDtypeStruct(keys.shape, keys.dtype),
            jax.ShapeDtypeStruct(values.shape, values.dtype),
        ],
        input_output_aliases={2: 0, 3: 1} if before else {},
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="write_keys_values",
    )(qkv, v_bias, *before)
    scales = () if scale_mul is None else (scale_mul,)
    out = pl.pallas_call(
        functools.partial(
            _attend_kernel,
            length=length,
            offset=offset,
            block_q=block_q,
            block_k=block_k,
            interpret=interpret,
        ),
        grid=(rows, heads, pl.cdiv(length, block_q)),
        out_shape=jax.ShapeDtypeStruct((qkv.shape[0], width), qkv.dtype),
        compiler_params=plt.CompilerParams(num_warps=warps, num_stages=stages),
        interpret=interpret,
        name="attend_cache",
    )(qkv, q_bias, *scales, limits, keys, values)
    return out, keys, values
