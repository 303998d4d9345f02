"""The KV cache: keys and values of all positions so far, padded to a fixed length."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import DTypeLike

from sdvar_jax.config import VARConfig


class KVCache(struct.PyTreeNode):
    """Keys and values of every block, written at a scale's offset and read up to its end.

    The cache knows nothing of how much of it is valid: a decoder reads only what it has committed,
    so taking scales back is a change of its committed length and touches no array.

    Attributes:
      keys: one array a block, [batch, length, heads, head_dim]; or one of all blocks,
        [depth, batch, length, heads, head_dim], for stacked blocks.
      values: likewise.
    """

    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]

    @classmethod
    def make(
        cls,
        config: VARConfig,
        batch: int,
        dtype: DTypeLike,
        *,
        scales: int | None = None,
        stacked: bool = False,
    ) -> KVCache:
        """An empty cache.

        Args:
          config: the model's.
          batch: rows, twice the images under guidance.
          dtype: of keys and values.
          scales: the model is asked for the scales before this one alone; None for all.
          stacked: one array for all blocks.
        """
        length = config.pyramid.offsets[config.pyramid.num_scales if scales is None else scales]
        shape = (batch, length, config.heads, config.head_dim)
        if stacked:
            whole = (config.depth, *shape)
            return cls(keys=(jnp.zeros(whole, dtype),), values=(jnp.zeros(whole, dtype),))
        return cls(
            keys=tuple(jnp.zeros(shape, dtype) for _ in range(config.depth)),
            values=tuple(jnp.zeros(shape, dtype) for _ in range(config.depth)),
        )
