"""Configuration of the multi-scale VQVAE."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sdvar_jax.config.pyramid import PYRAMID_256, ScalePyramid
from sdvar_jax.config.validation import require, require_known_fields

_GROUPS = 32


@dataclasses.dataclass(frozen=True)
class VQVAEConfig:
    """Shapes of the multi-scale VQVAE (VAR, section 3.2; the official one is the default).

    Attributes:
      pyramid: sides of the token maps.
      vocab_size: codebook entries, V.
      latent_channels: channels of f_hat and of a codebook entry, C_vae.
      channels: channels at full resolution; a multiple of 32 (GroupNorm).
      channel_multipliers: channels of each resolution level in units of ``channels``; every level
        but the last halves the side.
      residual_blocks: residual blocks a level in the encoder (the decoder has one more).
      shared_convolutions: residual convolutions phi shared among the scales; 0 means one a scale.
      residual_ratio: share of the convolution in phi(x) = (1-r)*x + r*conv(x).
      attention: self-attention at the lowest resolution of encoder and decoder.
      mid_attention: self-attention between the two middle blocks.
    """

    pyramid: ScalePyramid = PYRAMID_256
    vocab_size: int = 4096
    latent_channels: int = 32
    channels: int = 160
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    residual_blocks: int = 2
    shared_convolutions: int = 4
    residual_ratio: float = 0.5
    attention: bool = True
    mid_attention: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel_multipliers", tuple(self.channel_multipliers))
        require(self.vocab_size >= 2, f"vocab_size must be at least 2, got {self.vocab_size}")
        require(self.latent_channels >= 1, f"latent_channels must be positive, got {self}")
        require(
            self.channels > 0 and self.channels % _GROUPS == 0,
            f"channels must be a positive multiple of {_GROUPS}, got {self.channels}",
        )
        require(
            len(self.channel_multipliers) >= 1 and min(self.channel_multipliers) >= 1,
            f"channel_multipliers must be positive, got {self.channel_multipliers}",
        )
        require(self.residual_blocks >= 1, "residual_blocks must be at least 1")
        require(
            0 <= self.shared_convolutions <= self.pyramid.num_scales,
            f"shared_convolutions must be 0 (one a scale) to {self.pyramid.num_scales}, "
            f"got {self.shared_convolutions}",
        )
        require(0.0 <= self.residual_ratio <= 1.0, "residual_ratio must lie in 0..1")

    @property
    def downsampling(self) -> int:
        """Pixels a side of one f_hat cell."""
        return 2 ** (len(self.channel_multipliers) - 1)

    @property
    def image_side(self) -> int:
        """Side of the square images in pixels."""
        return self.pyramid.latent_side * self.downsampling

    @property
    def num_convolutions(self) -> int:
        """Residual convolutions phi that are stored."""
        return self.shared_convolutions or self.pyramid.num_scales

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {**dataclasses.asdict(self), "pyramid": list(self.pyramid.sides)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VQVAEConfig:
        """Reads what ``to_dict`` wrote; ``SdvarError`` names unknown and missing fields."""
        require_known_fields(cls, data)
        return cls(**{**data, "pyramid": ScalePyramid(tuple(data["pyramid"]))})
