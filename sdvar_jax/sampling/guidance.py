"""Classifier-free guidance: doubling the batch, splitting it, mixing the halves.

The conditional half always comes first, the unconditional one second.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np


def double_batch(array: jax.Array) -> jax.Array:
    """Repeats the batch for the two halves: [batch, ...] -> [2 * batch, ...]."""
    return jnp.concatenate([array, array], axis=0)


def split_halves(array: jax.Array, batch: int) -> tuple[jax.Array, jax.Array]:
    """The conditional and the unconditional half of [2 * batch, ...], [batch, ...] each."""
    chex.assert_axis_dimension(array, 0, 2 * batch)
    return array[:batch], array[batch:]


def guide(logits: jax.Array, strength: jax.Array, batch: int) -> jax.Array:
    """Guided logits, (1 + t) * conditional - t * unconditional.

    Args:
      logits: float32 [2 * batch, length, vocab]; or [batch, length, vocab] where guidance is off,
        which come back as they are.
      strength: t, scalar.
      batch: images.

    Returns:
      float32 [batch, length, vocab].
    """
    chex.assert_rank(logits, 3)
    if logits.shape[0] == batch:
        return logits
    conditional, unconditional = split_halves(logits, batch)
    return (1.0 + strength) * conditional - strength * unconditional


def guidance_by_scale(cfg: float, num_scales: int, schedule: str = "linear") -> np.ndarray:
    """Strength t at every scale, float32 [num_scales]; linear is t_k = cfg * k / (K - 1)."""
    if schedule == "linear":
        return (cfg * np.arange(num_scales) / (num_scales - 1)).astype(np.float32)
    return np.full((num_scales,), cfg, np.float32)
