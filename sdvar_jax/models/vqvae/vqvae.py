"""The multi-scale VQVAE: encoder, residual quantizer, decoder."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from sdvar_jax.config import FLOAT32, DTypePolicy, VQVAEConfig
from sdvar_jax.models.vqvae.decoder import Decoder
from sdvar_jax.models.vqvae.encoder import Encoder
from sdvar_jax.models.vqvae.layers import conv
from sdvar_jax.models.vqvae.quantizer import Quantizer


class VQVAE(nnx.Module):
    """Turns images into K token maps and back (VAR, section 3.2).

    Attributes:
      config: its shapes.
      dtypes: parameters' and arithmetic's dtype; the quantizer stays in float32.
    """

    def __init__(
        self, config: VQVAEConfig, dtypes: DTypePolicy = FLOAT32, *, rngs: nnx.Rngs
    ) -> None:
        self.config = config
        self.dtypes = dtypes
        channels = config.latent_channels
        self.encoder = Encoder(config, dtypes, rngs=rngs)
        self.quant_conv = conv(channels, channels, 3, dtypes, rngs)
        self.quantizer = Quantizer(config, rngs=rngs)
        self.post_quant_conv = conv(channels, channels, 3, dtypes, rngs)
        self.decoder = Decoder(config, dtypes, rngs=rngs)

    def encode(self, images: jax.Array) -> jax.Array:
        """Features before quantization.

        Args:
          images: [batch, side, side, 3] in [-1, 1].

        Returns:
          float32 [batch, latent, latent, latent_channels].
        """
        side = self.config.image_side
        chex.assert_shape(images, (None, side, side, 3))
        features = self.encoder(images.astype(self.dtypes.compute_dtype))
        return self.quant_conv(features).astype(jnp.float32)

    def tokenize(self, images: jax.Array) -> tuple[jax.Array, ...]:
        """Token maps, K times int32 [batch, p*p], of images [batch, side, side, 3] in [-1, 1]."""
        return self.quantizer.tokenize(self.encode(images))[0]

    def decode(self, f_hat: jax.Array) -> jax.Array:
        """Images from f_hat.

        Args:
          f_hat: [batch, latent, latent, latent_channels].

        Returns:
          float32 [batch, side, side, 3], clipped to [-1, 1].
        """
        latent = self.config.pyramid.latent_side
        chex.assert_shape(f_hat, (None, latent, latent, self.config.latent_channels))
        features = self.post_quant_conv(f_hat.astype(self.dtypes.compute_dtype))
        return jnp.clip(self.decoder(features).astype(jnp.float32), -1.0, 1.0)

    def decode_tokens(self, token_maps: tuple[jax.Array, ...]) -> jax.Array:
        """Images from K token maps: float32 [batch, side, side, 3] in [-1, 1]."""
        return self.decode(self.quantizer.f_hats(token_maps)[-1])

    def reconstruct(self, images: jax.Array) -> jax.Array:
        """Images after encoding, quantizing and decoding; shapes and range as the input's."""
        return self.decode_tokens(self.tokenize(images))
