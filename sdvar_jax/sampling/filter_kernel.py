"""The thresholds of top-k and top-p in one kernel, a program a row (Pallas, through Triton).

The same search as ``filtering`` does over the bits of the logits, one bit a step, on a row that
stays in registers: the row is read once.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.runtime.dependent_launch import launch_next
from sdvar_jax.sampling.filtering import dropped_by_top_k, from_ordered_bits, ordered_bits

_INT_MIN = -(2**31)
_INT_MAX = 2**31 - 1


def _kernel(
    logits_ref: Any, dropped_ref: Any, top_p_ref: Any, out_ref: Any, *, vocab: int, interpret: bool
) -> None:
    size = pl.next_power_of_2(vocab)
    inside = jnp.arange(size) < vocab
    zero = launch_next(interpret=interpret)
    row = pl.program_id(0) + zero
    logits = plt.load(logits_ref.at[row, pl.ds(0, size)], mask=inside, other=-jnp.inf)
    bits = ordered_bits(logits)

    def with_bit(i: Any, low: jax.Array, weights: jax.Array, allowed: jax.Array) -> Any:
        """``low`` with its i-th bit where what lies below it then weighs at most ``allowed``.

        Whether that is so, and what lies below it then, come second and third.
        """
        candidate = low + (jnp.int32(1) << (31 - i))
        weight = jnp.sum(jnp.where(bits < candidate, weights, 0.0), axis=0)
        passes = weight <= allowed
        return jnp.where(passes, candidate, low), passes, weight

    def largest(weights: jax.Array, allowed: jax.Array) -> jax.Array:
        """The largest t for which what lies below it weighs at most ``allowed``."""

        def add_bit(i: Any, low: jax.Array) -> jax.Array:
            return with_bit(i, low, weights, allowed)[0]

        return jax.lax.fori_loop(0, 32, add_bit, jnp.int32(_INT_MIN))

    def largest_by_count(allowed: jax.Array) -> jax.Array:
        """The same where all weigh one: settled as soon as exactly so many lie below."""

        def unsettled(state: Any) -> jax.Array:
            i, _, below = state
            return (i < 32) & (below < allowed)

        def add_bit(state: Any) -> Any:
            i, low, below = state
            low, passes, count = with_bit(i, low, inside.astype(jnp.float32), allowed)
            return i + 1, low, jnp.where(passes, count, below)

        start = (jnp.int32(0) + zero, jnp.int32(_INT_MIN) + zero, zero.astype(jnp.float32))
        _, low, _ = jax.lax.while_loop(unsettled, add_bit, start)
        return jnp.min(jnp.where(inside & (bits >= low), bits, jnp.int32(_INT_MAX)), axis=0)

    kth_bits = largest_by_count(dropped_ref[0])
    kept = jnp.where(bits >= kth_bits, logits, -jnp.inf)
    shifted = jnp.exp(kept - jnp.max(logits, axis=0))
    probabilities = shifted / jnp.sum(shifted, axis=0)
    top_p = top_p_ref[0]
    nucleus = largest(probabilities, 1.0 - top_p)
    # The most likely token always stays.
    nucleus = jnp.minimum(nucleus, jnp.max(bits, axis=0))
    threshold = jnp.where(top_p > 0, jnp.maximum(nucleus, kth_bits), kth_bits)
    out_ref[row] = from_ordered_bits(threshold)


@functools.partial(jax.jit, static_argnames=("interpret",))
def keep_threshold_kernel(
    logits: jax.Array, top_k: jax.Array, top_p: jax.Array, *, interpret: bool | None = None
) -> jax.Array:
    """The smallest logit that top-k and then top-p keep; see ``filtering.keep_threshold``.

    ``interpret`` runs it without an accelerator, slowly; None does so where the backend is a CPU.
    """
    if interpret is None:
        interpret = jax.default_backend() == "cpu"
    vocab = logits.shape[-1]
    rows = logits.reshape(-1, vocab)  # [rows, vocab]
    dropped = dropped_by_top_k(top_k, vocab)
    # A program's row is a power of two long; what lies behind the vocabulary is never read.
    row = pl.next_power_of_2(vocab)
    threshold = pl.pallas_call(
        functools.partial(_kernel, vocab=vocab, interpret=interpret),
        grid=(rows.shape[0],),
        in_specs=[
            pl.BlockSpec((rows.shape[0], row), lambda r: (0, 0)),
            pl.BlockSpec((1,), lambda r: (0,)),
            pl.BlockSpec((1,), lambda r: (0,)),
        ],
        out_specs=pl.BlockSpec((rows.shape[0],), lambda r: (0,)),
        out_shape=jax.ShapeDtypeStruct((rows.shape[0],), jnp.float32),
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=1),
        interpret=interpret,
        name="keep_threshold",
    )(rows, dropped[None], jnp.asarray(top_p, jnp.float32)[None])
    return threshold.reshape(*logits.shape[:-1], 1)
