"""The VQVAE's encoder: image to features."""

from __future__ import annotations

import chex
import jax
from flax import nnx

from sdvar_jax.config import DTypePolicy, VQVAEConfig
from sdvar_jax.models.vqvae.layers import (
    Downsample,
    GroupNorm,
    Level,
    MiddleBlock,
    conv,
)


class EncoderLevel(Level):
    """Residual blocks of one resolution, attention behind each at the lowest, then halving."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        attention: bool,
        downsample: bool,
        dtypes: DTypePolicy,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(in_channels, out_channels, blocks, attention, dtypes, rngs=rngs)
        self.downsample = Downsample(out_channels, dtypes, rngs=rngs) if downsample else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, h, w, in] -> [batch, h/2, w/2, out] ([batch, h, w, out] at the last level)."""
        x = super().__call__(x)
        return x if self.downsample is None else self.downsample(x)


class Encoder(nnx.Module):
    """Convolutional encoder, [batch, side, side, 3] -> [batch, latent, latent, C_vae]."""

    def __init__(self, config: VQVAEConfig, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        self.config = config
        widths = [config.channels * m for m in config.channel_multipliers]
        last = len(widths) - 1
        self.conv_in = conv(3, config.channels, 3, dtypes, rngs)
        self.down = nnx.List(
            EncoderLevel(
                config.channels if i == 0 else widths[i - 1],
                width,
                config.residual_blocks,
                config.attention and i == last,
                i != last,
                dtypes,
                rngs=rngs,
            )
            for i, width in enumerate(widths)
        )
        self.mid = MiddleBlock(widths[-1], config.mid_attention, dtypes, rngs=rngs)
        self.norm_out = GroupNorm(widths[-1], dtypes, rngs)
        self.conv_out = conv(widths[-1], config.latent_channels, 3, dtypes, rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Encodes images.

        Args:
          images: [batch, side, side, 3] in [-1, 1].

        Returns:
          [batch, side/d, side/d, latent_channels], d the config's ``downsampling``.
        """
        chex.assert_shape(images, (None, None, None, 3))
        x = self.conv_in(images)
        for level in self.down:
            x = level(x)
        return self.conv_out(self.norm_out.normalize(self.mid(x), silu=True))
