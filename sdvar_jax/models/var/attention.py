"""Multi-head self-attention of VAR with optional q/k normalisation."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from sdvar_jax.config import DTypePolicy, VARConfig
from sdvar_jax.models.var.initializers import linear, weight_init
from sdvar_jax.models.var.products import Kernel, product

_MAX_LOG_SCALE = math.log(100.0)
_INITIAL_SCALE = 4.0


def l2_normalize(x: jax.Array) -> jax.Array:
    """Divides by the norm, x / max(|x|, 1e-12) over the last axis, in float32."""
    x = x.astype(jnp.float32)
    squares = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def head_scale(scale_mul: jax.Array) -> jax.Array:
    """What L2-normalised queries are multiplied by: exp(min(scale_mul, log 100)), float32."""
    return jnp.exp(jnp.minimum(scale_mul.astype(jnp.float32), _MAX_LOG_SCALE))


def plain_scale(head_dim: int) -> float:
    """What scores are multiplied by where q and k are not normalised, as in the original."""
    return 0.25 / math.sqrt(head_dim)


class SelfAttention(nnx.Module):
    """Self-attention over the cached positions and the window's own.

    With ``attn_l2_norm`` q and k are L2-normalised, q is scaled a head (``head_scale``) and the
    scores are not; without it they are scaled by 0.25/sqrt(head_dim), as in the original. The bias
    of k is always zero and not stored.

    Attributes:
      qkv_kernel: [width, 3 * width], floats or int8.
      qkv_kernel_scale: float32 [3 * width] of an int8 kernel, else None.
    """

    # Of the class, see ``products.Linear``.
    qkv_kernel_scale: nnx.Param | None = None

    def __init__(self, config: VARConfig, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.dtypes = dtypes
        width, dtype = config.width, dtypes.param_dtype
        self.qkv_kernel = nnx.Param(
            weight_init(width)(rngs.params(), (width, 3 * width), dtype)
        )  # [width, 3 * width]
        self.q_bias = nnx.Param(jnp.zeros((width,), dtype))
        self.v_bias = nnx.Param(jnp.zeros((width,), dtype))
        self.scale_mul = (
            nnx.Param(jnp.full((config.heads,), math.log(_INITIAL_SCALE), dtype))
            if config.attn_l2_norm
            else None
        )
        self.proj = linear(
            width, width, dtypes, rngs, width_scale=width, gain=(2 * config.depth) ** -0.5
        )

    def qkv_weight(self) -> Kernel:
        """What x is multiplied by for queries, keys and values, [width, 3 * width]."""
        return Kernel.of(self.qkv_kernel, self.qkv_kernel_scale)

    def qkv_bias(self) -> jax.Array:
        """The bias of the projection [3 * width]; that of k is zero."""
        return jnp.concatenate(
            [self.q_bias[...], jnp.zeros_like(self.q_bias[...]), self.v_bias[...]]
        )

    def project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values of x [batch, length, width], [batch, length, heads, head_dim].

        All are in the compute dtype; normalisation and scaling are already in q and k.
        """
        config, dtype = self.config, self.dtypes.compute_dtype
        qkv = product(x, self.qkv_weight(), self.dtypes) + self.qkv_bias().astype(dtype)[None, None]
        qkv = qkv.reshape(*x.shape[:2], 3, config.heads, config.head_dim)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if self.scale_mul is not None:
            scale = head_scale(self.scale_mul[...])[None, None, :, None]
            q = (l2_normalize(q) * scale).astype(dtype)
            k = l2_normalize(k).astype(dtype)
        return q, k, v

    def attend(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Softmax attention and the output projection.

        Args:
          q: [batch, length, heads, head_dim].
          k: [batch, keys, heads, head_dim].
          v: as k.
          mask: bool [length, keys], True where a query sees a key; None if it sees all.

        Returns:
          [batch, length, width] in the compute dtype.
        """
        chex.assert_equal_shape([k, v])
        scale = 1.0 if self.config.attn_l2_norm else plain_scale(self.config.head_dim)
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk",
            q * jnp.asarray(scale, q.dtype),
            k,
            precision=self.dtypes.precision,
            preferred_element_type=jnp.float32,
        )  # [batch, heads, length, keys]
        if mask is not None:
            chex.assert_shape(mask, (q.shape[1], k.shape[1]))
            scores = jnp.where(mask[None, None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        out = jnp.einsum("bhqk,bkhd->bqhd", weights, v, precision=self.dtypes.precision)
        return self.proj(out.reshape(*q.shape[:2], -1))
