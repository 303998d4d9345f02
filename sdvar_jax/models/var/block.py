"""One transformer block with adaptive LayerNorm."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from sdvar_jax.config import DTypePolicy, VARConfig
from sdvar_jax.models.var.attention import SelfAttention
from sdvar_jax.models.var.initializers import (
    ADALN_GAIN,
    ADALN_GAMMA_GAIN,
    linear,
    modulation_init,
)

Projection = Callable[[nnx.Linear, jax.Array], jax.Array]
"""Runs a linear layer over rows, [rows, width] -> [rows, columns]."""


def layer_norm(x: jax.Array, eps: float) -> jax.Array:
    """LayerNorm without affine part over the last axis; statistics and result in float32."""
    x = x.astype(jnp.float32)
    centered = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centered * centered, axis=-1, keepdims=True)
    return centered * jax.lax.rsqrt(variance + eps)


class FeedForward(nnx.Module):
    """Two linear layers with the tanh form of GELU between them."""

    def __init__(self, config: VARConfig, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        width = config.width
        self.fc1 = linear(width, config.mlp_width, dtypes, rngs, width_scale=width)
        self.fc2 = linear(
            config.mlp_width,
            width,
            dtypes,
            rngs,
            width_scale=width,
            gain=(2 * config.depth) ** -0.5,
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Keeps the shape [batch, length, width]."""
        return self.fc2(jax.nn.gelu(self.fc1(x), approximate=True))


def _shared_offset(config: VARConfig, dtypes: DTypePolicy, rngs: nnx.Rngs) -> nnx.Param:
    """What a block adds to the shared projection, [6, width]."""
    gains = jnp.where(jnp.arange(6) < 2, ADALN_GAMMA_GAIN, ADALN_GAIN)[:, None]
    noise = jax.random.normal(rngs.params(), (6, config.width)) * config.width**-0.5
    return nnx.Param((noise * gains).astype(dtypes.param_dtype))


def _own_projection(config: VARConfig, dtypes: DTypePolicy, rngs: nnx.Rngs) -> nnx.Linear:
    """A block's own AdaLN projection, width -> 6 * width."""
    return nnx.Linear(
        config.width,
        6 * config.width,
        dtype=dtypes.compute_dtype,
        param_dtype=dtypes.param_dtype,
        precision=dtypes.precision,
        kernel_init=modulation_init(config.width),
        rngs=rngs,
    )


class Block(nnx.Module):
    """Attention and feed-forward, each modulated by the class (AdaLN).

    The six modulation vectors are gamma1, gamma2, scale1, scale2, shift1, shift2, in this order.
    They depend on the class alone, so ``modulation`` is called once an image.
    """

    def __init__(self, config: VARConfig, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.dtypes = dtypes
        self.attn = SelfAttention(config, dtypes, rngs=rngs)
        self.ffn = FeedForward(config, dtypes, rngs=rngs)
        shared = config.shared_aln
        self.ada_gss = _shared_offset(config, dtypes, rngs) if shared else None
        self.ada_lin = None if shared else _own_projection(config, dtypes, rngs)

    def modulation(
        self,
        activated: jax.Array,
        shared: jax.Array | None,
        project: Projection = nnx.Linear.__call__,
    ) -> jax.Array:
        """The block's six modulation vectors.

        Args:
          activated: SiLU of the class embedding [batch, width].
          shared: the shared projection [batch, 6, width], if the model has one.
          project: runs the block's own projection.

        Returns:
          [batch, 6, width] in the compute dtype.
        """
        if self.ada_lin is None:
            assert shared is not None
            assert self.ada_gss is not None
            return shared + self.ada_gss[...].astype(self.dtypes.compute_dtype)[None]
        return project(self.ada_lin, activated).reshape(-1, 6, self.config.width)

    def __call__(
        self,
        x: jax.Array,
        modulation: jax.Array,
        cached: tuple[jax.Array, jax.Array] | None = None,
        offset: int = 0,
        mask: jax.Array | None = None,
        keep: tuple[jax.Array, jax.Array] | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        """Applies the block to a window of positions.

        Args:
          x: [batch, length, width].
          modulation: [batch, 6, width].
          cached: this block's keys and values [batch, cache length, heads, head_dim]; the window's
            own are written at ``offset`` and attention reads positions 0..offset+length. None:
            attention over the window alone.
          offset: position of the window's first token.
          mask: bool [length, keys], see ``SelfAttention.attend``.
          keep: stochastic depth in training: factors [batch, 1, 1] on the two residual branches.

        Returns:
          x after the block, and the updated keys and values.
        """
        q, k, v = self.project(x, modulation)
        if cached is None:
            cached = (k, v)
            keys, values = k, v
        else:
            # A window may run fewer rows than the cache holds (no unconditional half).
            rows, stop = x.shape[0], offset + x.shape[1]
            cached = (
                jax.lax.dynamic_update_slice(cached[0], k, (0, offset, 0, 0)),
                jax.lax.dynamic_update_slice(cached[1], v, (0, offset, 0, 0)),
            )
            keys, values = cached[0][:rows, :stop], cached[1][:rows, :stop]
        return self.finish(x, modulation, self.attn.attend(q, keys, values, mask), keep), cached

    def project(
        self, x: jax.Array, modulation: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries, keys and values of x, see ``SelfAttention.project``."""
        scale, shift = modulation[:, 2:3], modulation[:, 4:5]
        h = layer_norm(x, self.config.norm_eps) * (scale + 1) + shift
        return self.attn.project(h.astype(self.dtypes.compute_dtype))

    def finish(
        self,
        x: jax.Array,
        modulation: jax.Array,
        attended: jax.Array,
        keep: tuple[jax.Array, jax.Array] | None = None,
    ) -> jax.Array:
        """What follows the attention.

        Args:
          x: before the block, [batch, length, width].
          modulation: [batch, 6, width].
          attended: the attention's branch, see ``SelfAttention.attend``.
          keep: see ``__call__``.

        Returns:
          x after the block.
        """
        dtype = self.dtypes.compute_dtype
        gamma1, gamma2, _, scale, _, shift = (
            modulation[:, i : i + 1] for i in range(6)
        )  # [batch, 1, width] each
        branch = attended * gamma1
        x = x + (branch if keep is None else branch * keep[0].astype(dtype))
        h = (layer_norm(x, self.config.norm_eps) * (scale + 1) + shift).astype(dtype)
        branch = self.ffn(h) * gamma2
        return x + (branch if keep is None else branch * keep[1].astype(dtype))
