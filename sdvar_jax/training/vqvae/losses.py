"""How far a reconstruction is from its picture."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def edge_error(reconstruction: jax.Array, images: jax.Array) -> jax.Array:
    """Mean absolute error of the differences between neighbouring pixels, scalar.

    Args:
      reconstruction: [batch, side, side, 3].
      images: likewise.
    """
    chex.assert_equal_shape([reconstruction, images])
    error = reconstruction - images
    across = jnp.abs(error[:, :, 1:] - error[:, :, :-1])
    down = jnp.abs(error[:, 1:] - error[:, :-1])
    return jnp.mean(across) + jnp.mean(down)


def psnr(reconstruction: jax.Array, images: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio of each picture in dB, [batch]; values in [-1, 1]."""
    chex.assert_equal_shape([reconstruction, images])
    squares = jnp.mean((reconstruction - images) ** 2, axis=(1, 2, 3))
    return 10.0 * jnp.log10(4.0 / jnp.maximum(squares, 1e-10))
