"""The loss of VAR: cross-entropy of the tokens of all scales."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config import ScalePyramid


def drop_labels(labels: jax.Array, unconditional: int, share: float, key: jax.Array) -> jax.Array:
    """Replaces a share of the labels int [batch] by "no class", for guidance."""
    dropped = jax.random.uniform(key, labels.shape) < share
    return jnp.where(dropped, unconditional, labels)


def position_weights(pyramid: ScalePyramid, scale_power: float) -> np.ndarray:
    """Weight of each position in the loss, float32 [total_length], of sum 1.

    Scale k weighs ``lengths[k] ** scale_power`` in all, shared evenly by its tokens.
    """
    lengths = np.asarray(pyramid.lengths, np.float64)
    shares = lengths**scale_power / np.sum(lengths**scale_power)
    return np.repeat(shares / lengths, pyramid.lengths).astype(np.float32)


def token_losses(logits: jax.Array, tokens: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each token in nats.

    Args:
      logits: float32 [batch, length, vocab].
      tokens: int [batch, length].
      label_smoothing: share spread evenly over all tokens.

    Returns:
      float32 [batch, length].
    """
    chex.assert_equal_shape_prefix([logits, tokens], 2)
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    loss = normalizer - picked
    if label_smoothing:
        even = normalizer - jnp.mean(logits, axis=-1)
        loss = (1.0 - label_smoothing) * loss + label_smoothing * even
    return loss
