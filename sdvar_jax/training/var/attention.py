"""Block-causal attention of a whole pyramid in training, without the masked part.

A token sees its own scale and all before it, so the queries of one scale need the same prefix of
the keys and no mask: about 0.6 of the full square's arithmetic. The first, small scales share one
masked block. cuDNN's fused attention, where it runs, takes the whole square with the mask.
"""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config import ScalePyramid
from sdvar_jax.models import block_causal_mask

ATTENTIONS = ("auto", "xla", "cudnn")

# The leading scales that together hold at most this share of the positions go together.
_LEADING_SHARE = 0.25


def query_groups(pyramid: ScalePyramid) -> tuple[tuple[int, int], ...]:
    """Scales (start, stop) whose queries are handled together."""
    most = _LEADING_SHARE * pyramid.total_length
    leading = max(1, sum(offset <= most for offset in pyramid.offsets[1:]))
    singles = range(leading, pyramid.num_scales)
    return ((0, leading), *((scale, scale + 1) for scale in singles))


def _xla(q: jax.Array, k: jax.Array, v: jax.Array, mask: Any, precision: Any) -> jax.Array:
    scores = jnp.einsum(
        "bqhd,bkhd->bhqk", q, k, precision=precision, preferred_element_type=jnp.float32
    )
    if mask is not None:
        scores = jnp.where(mask[None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v, precision=precision)


def even_mask(pyramid: ScalePyramid) -> np.ndarray:
    """``block_causal_mask`` of all scales, at an odd length with one position more.

    No position sees that one; it sees itself and all others.

    Returns:
      bool [length, length], length even.
    """
    mask = block_causal_mask(pyramid)
    more = pyramid.total_length % 2
    mask = np.pad(mask, ((0, more), (0, more)))
    if more:
        mask[-1] = True
    return mask


def _cudnn(q: jax.Array, k: jax.Array, v: jax.Array, pyramid: ScalePyramid) -> jax.Array:
    # One call with the mask: training with cuDNN wants even lengths, and many scales are odd.
    mask = even_mask(pyramid)
    more = ((0, 0), (0, mask.shape[0] - pyramid.total_length), (0, 0), (0, 0))
    q, k, v = (jnp.pad(array, more) for array in (q, k, v))
    seen = jnp.asarray(mask)[None, None]
    out = jax.nn.dot_product_attention(q, k, v, mask=seen, scale=1.0, implementation="cudnn")
    return out[:, : pyramid.total_length]


def pyramid_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    pyramid: ScalePyramid,
    implementation: str,
    precision: Any = None,
) -> jax.Array:
    """Block-causal attention over all scales; q comes scaled.

    Args:
      q: [batch, total_length, heads, head_dim].
      k: likewise.
      v: likewise.
      pyramid: the scales.
      implementation: "xla" or "cudnn" (bfloat16 or float16 on an NVIDIA GPU).
      precision: of XLA's products.

    Returns:
      As q.
    """
    chex.assert_shape([q, k, v], (None, pyramid.total_length, None, None))
    if implementation == "cudnn":
        return _cudnn(q, k, v, pyramid)
    parts = []
    for start, stop in query_groups(pyramid):
        window = pyramid.window(start, stop)
        arrays = (q[:, window], k[:, : window.stop], v[:, : window.stop])
        mask = None
        if stop - start > 1:
            mask = jnp.asarray(block_causal_mask(pyramid, start, stop))
        parts.append(_xla(*arrays, mask, precision))
    return jnp.concatenate(parts, axis=1)


@functools.lru_cache(maxsize=8)
def choose_attention(wanted: str, pyramid: ScalePyramid, head_dim: int, dtype: np.dtype) -> str:
    """The implementation to use: what is wanted, or for "auto" cuDNN's where it proves itself.

    "auto" runs a forward and a backward pass of both on a small batch and takes cuDNN's if it runs
    and agrees.

    Args:
      wanted: one of ``ATTENTIONS``.
      pyramid: the scales.
      head_dim: channels of one head.
      dtype: of the arithmetic.

    Returns:
      "xla" or "cudnn".
    """
    if wanted != "auto":
        return wanted
    half = dtype.itemsize == 2
    if jax.default_backend() != "gpu" or not half or head_dim % 8:
        return "xla"
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (2, pyramid.total_length, 2, head_dim)
    q, k, v = (jax.random.normal(key, shape).astype(dtype) for key in keys)

    def total(implementation: str, arrays: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        out = pyramid_attention(arrays[0], arrays[1], arrays[2], pyramid, implementation)
        return jnp.sum(out.astype(jnp.float32) ** 2)

    try:
        gradients = [
            jax.jit(jax.grad(lambda arrays, name=name: total(name, arrays)))((q * 0.1, k, v))
            for name in ("xla", "cudnn")
        ]
    except Exception:
        # Whatever a library that is missing, too old or of another kind raises.
        return "xla"
    for ours, theirs in zip(*gradients, strict=True):
        ours, theirs = (np.asarray(array, np.float32) for array in (ours, theirs))
        if not np.max(np.abs(ours - theirs)) <= 0.1 * np.max(np.abs(ours)):
            return "xla"
    return "cudnn"
