"""The quantizer in training: straight-through gradient and its loss."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import struct

from sdvar_jax.models import Quantizer
from sdvar_jax.models.resize import resize_area


class Quantized(struct.PyTreeNode):
    """What quantizing a batch of features gives in training.

    Attributes:
      f_hat: f_hat after the last scale, float32 [batch, latent, latent, channels]; its gradient
        goes to the features unchanged.
      loss: VQ and commitment loss, scalar.
      use: how often each codebook entry was used, float32 [vocab].
      rests: what was quantized at each scale, float32 [batch * side**2, channels].
    """

    f_hat: jax.Array
    loss: jax.Array
    use: jax.Array
    rests: tuple[jax.Array, ...]


def quantize(quantizer: Quantizer, features: jax.Array, commitment: float) -> Quantized:
    """Quantizes features scale by scale (VAR, ``VectorQuantizer2.forward``).

    At every scale the loss takes commitment * |sg(f_hat) - f|^2 + |f_hat - sg(f)|^2, divided by
    the number of scales: the second part moves the codebook and the residual convolutions, the
    first the encoder.

    Args:
      quantizer: of the VQVAE.
      features: the encoder's [batch, latent, latent, channels].
      commitment: beta.

    Returns:
      See ``Quantized``.
    """
    config = quantizer.config
    side = config.pyramid.latent_side
    chex.assert_shape(features, (None, side, side, config.latent_channels))
    features = features.astype(jnp.float32)
    fixed = jax.lax.stop_gradient(features)
    rest, f_hat = fixed, jnp.zeros_like(fixed)
    loss = jnp.zeros(())
    use = jnp.zeros((config.vocab_size,))
    rests = []
    for scale, side in enumerate(config.pyramid.sides):
        wanted = resize_area(rest, side).reshape(-1, side * side, config.latent_channels)
        tokens = jax.lax.stop_gradient(quantizer.nearest(wanted))  # [batch, side**2]
        added = quantizer.residual(quantizer.embed(tokens), scale)
        f_hat = f_hat + added
        rest = rest - jax.lax.stop_gradient(added)
        loss += commitment * jnp.mean((jax.lax.stop_gradient(f_hat) - features) ** 2)
        loss += jnp.mean((f_hat - fixed) ** 2)
        use = use.at[tokens.reshape(-1)].add(1.0)
        rests.append(wanted.reshape(-1, config.latent_channels))
    return Quantized(
        f_hat=features + jax.lax.stop_gradient(f_hat - features),
        loss=loss / config.pyramid.num_scales,
        use=use,
        rests=tuple(rests),
    )
