"""Top-k and top-p filtering of logits by one threshold a row.

Both filters keep a token exactly if its logit reaches a threshold, so filtering is finding that
threshold. Three ways find it: sorting (the reference), a search over the bits of the logits that
needs no sort, and the same search as one kernel on NVIDIA GPUs (``filter_kernel``).
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

METHODS = ("sort", "search", "kernel")

_INT_MIN = -(2**31)
_DIGIT_BITS = 4


def _threshold_by_sort(logits: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
    vocab = logits.shape[-1]
    ordered = jnp.sort(logits, axis=-1)  # [..., vocab], ascending
    k = jnp.where(top_k > 0, jnp.clip(top_k, 1, vocab), vocab)
    kth = jnp.take(ordered, vocab - k, axis=-1)[..., None]  # [..., 1]
    probabilities = jax.nn.softmax(jnp.where(ordered < kth, -jnp.inf, ordered), axis=-1)
    removed = jnp.cumsum(probabilities, axis=-1) <= 1.0 - top_p
    # The most likely token always stays.
    count = jnp.minimum(jnp.sum(removed, axis=-1, keepdims=True), vocab - 1)
    nucleus = jnp.take_along_axis(ordered, count, axis=-1)
    return jnp.where(top_p > 0, jnp.maximum(nucleus, kth), kth)


def ordered_bits(values: jax.Array) -> jax.Array:
    """Int32 that order as the float32 values do."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)


def from_ordered_bits(bits: jax.Array) -> jax.Array:
    """The inverse of ``ordered_bits``."""
    bits = jnp.where(bits < 0, bits ^ jnp.int32(0x7FFFFFFF), bits)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def dropped_by_top_k(top_k: jax.Array, vocab: int) -> jax.Array:
    """How many tokens top-k drops, float32 scalar."""
    return jnp.where(top_k > 0, vocab - jnp.clip(top_k, 1, vocab), 0).astype(jnp.float32)


def _largest_threshold(bits: jax.Array, weights: jax.Array | None, allowed: jax.Array) -> jax.Array:
    """The largest t for which what lies below it weighs at most ``allowed``, int32 [..., 1].

    Finds t digit by digit from the top; each digit takes one pass over the row that weighs what
    lies below all its candidates at once. ``weights`` None counts.
    """

    def add_digit(i: jax.Array, low: jax.Array) -> jax.Array:
        shift = 32 - _DIGIT_BITS * (i + 1)
        digit = jnp.zeros_like(low)
        for value in range(1, 2**_DIGIT_BITS):
            # Wraps where two's complement wants it to.
            below = bits < low + (jnp.int32(value) << shift)
            weight = below.astype(jnp.float32) if weights is None else jnp.where(below, weights, 0)
            # Candidates grow, so those allowed are the first ones: counting them is the digit.
            digit += (jnp.sum(weight, axis=-1, keepdims=True) <= allowed).astype(jnp.int32)
        return low + (digit << shift)

    low = jnp.full((*bits.shape[:-1], 1), _INT_MIN, jnp.int32)
    return jax.lax.fori_loop(0, 32 // _DIGIT_BITS, add_digit, low)


def _threshold_by_search(logits: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
    bits = ordered_bits(logits)
    dropped = dropped_by_top_k(top_k, logits.shape[-1])
    kth = from_ordered_bits(_largest_threshold(bits, None, dropped))
    probabilities = jax.nn.softmax(jnp.where(logits < kth, -jnp.inf, logits), axis=-1)
    nucleus = _largest_threshold(bits, probabilities, 1.0 - top_p)
    # The most likely token always stays.
    nucleus = from_ordered_bits(jnp.minimum(nucleus, jnp.max(bits, axis=-1, keepdims=True)))
    return jnp.where(top_p > 0, jnp.maximum(nucleus, kth), kth)


def keep_threshold(
    logits: jax.Array, top_k: jax.Array, top_p: jax.Array, method: str = "sort"
) -> jax.Array:
    """The smallest logit that top-k and then top-p keep.

    Args:
      logits: float32 [..., vocab].
      top_k: int32 scalar; 0 keeps all.
      top_p: float32 scalar; 0 keeps all.
      method: one of ``METHODS``.

    Returns:
      float32 [..., 1]. Tokens tied at the threshold are all kept.
    """
    chex.assert_type(logits, jnp.float32)
    top_k, top_p = jnp.asarray(top_k), jnp.asarray(top_p, jnp.float32)
    if method == "sort":
        return _threshold_by_sort(logits, top_k, top_p)
    if method == "search":
        return _threshold_by_search(logits, top_k, top_p)
    # Imported late: Pallas takes a while, and only this method needs it.
    from sdvar_jax.sampling.filter_kernel import keep_threshold_kernel

    return keep_threshold_kernel(logits, top_k, top_p)


def filter_logits(
    logits: jax.Array, top_k: jax.Array, top_p: jax.Array, method: str = "sort"
) -> jax.Array:
    """Logits with everything that top-k and top-p drop at -inf; shapes as ``keep_threshold``."""
    threshold = keep_threshold(logits, top_k, top_p, method)
    return jnp.where(logits < threshold, -jnp.inf, logits)
