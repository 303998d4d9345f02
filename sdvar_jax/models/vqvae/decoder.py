"""The VQVAE's decoder: features to image."""

from __future__ import annotations

import chex
import jax
from flax import nnx

from sdvar_jax.config import DTypePolicy, VQVAEConfig
from sdvar_jax.models.vqvae.layers import (
    Convolution,
    GroupNorm,
    Level,
    MiddleBlock,
    PhasedUpsample,
    ThinConvolution,
    Upsample,
    conv,
)


class DecoderLevel(Level):
    """Residual blocks of one resolution, attention behind each at the lowest, then doubling."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        attention: bool,
        upsample: bool,
        dtypes: DTypePolicy,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(in_channels, out_channels, blocks, attention, dtypes, rngs=rngs)
        self.upsample: Upsample | PhasedUpsample | None = (
            Upsample(out_channels, dtypes, rngs=rngs) if upsample else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, h, w, in] -> [batch, 2h, 2w, out] ([batch, h, w, out] at full resolution)."""
        x = super().__call__(x)
        return x if self.upsample is None else self.upsample(x)


class Decoder(nnx.Module):
    """Convolutional decoder, [batch, latent, latent, C_vae] -> [batch, side, side, 3]."""

    def __init__(self, config: VQVAEConfig, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        self.config = config
        widths = [config.channels * m for m in config.channel_multipliers]
        last = len(widths) - 1
        self.conv_in = conv(config.latent_channels, widths[-1], 3, dtypes, rngs)
        self.mid = MiddleBlock(widths[-1], config.mid_attention, dtypes, rngs=rngs)
        # Level i works at 1/2**i of the image's side, so the levels run from last to first.
        self.up = nnx.List(
            DecoderLevel(
                widths[min(i + 1, last)],
                width,
                config.residual_blocks + 1,
                config.attention and i == last,
                i != 0,
                dtypes,
                rngs=rngs,
            )
            for i, width in enumerate(widths)
        )
        self.norm_out = GroupNorm(widths[0], dtypes, rngs)
        self.conv_out: Convolution | ThinConvolution = conv(widths[0], 3, 3, dtypes, rngs)

    def __call__(self, features: jax.Array) -> jax.Array:
        """Decodes features.

        Args:
          features: [batch, latent, latent, latent_channels].

        Returns:
          [batch, side, side, 3], nominally in [-1, 1] (not clipped).
        """
        chex.assert_shape(features, (None, None, None, self.config.latent_channels))
        x = self.mid(self.conv_in(features))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(self.norm_out.normalize(x, silu=True))
