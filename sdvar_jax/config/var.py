"""Configuration of the VAR transformer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sdvar_jax.config.pyramid import PYRAMID_256, ScalePyramid
from sdvar_jax.config.validation import require, require_known_fields


@dataclasses.dataclass(frozen=True)
class VARConfig:
    """Shapes of the VAR transformer (VAR, section 3.2 and appendix).

    Attributes:
      depth: transformer blocks.
      width: channels, C.
      heads: attention heads; ``width`` is a multiple of it.
      pyramid: sides of the token maps.
      vocab_size: codebook entries, V.
      latent_channels: channels of f_hat, C_vae.
      num_classes: class labels; one more embedding stands for "no class" (guidance).
      mlp_ratio: hidden width of the feed-forward layer in units of ``width``.
      attn_l2_norm: q and k are L2-normalised and q is scaled by a learned factor a head.
      shared_aln: one AdaLN projection shared by all blocks (d36).
      norm_eps: epsilon of the LayerNorms.
      drop_path_rate: stochastic depth of the last block in training, growing linearly from 0.
      label_dropout: share of labels replaced by "no class" in training.
    """

    depth: int
    width: int
    heads: int
    pyramid: ScalePyramid = PYRAMID_256
    vocab_size: int = 4096
    latent_channels: int = 32
    num_classes: int = 1000
    mlp_ratio: float = 4.0
    attn_l2_norm: bool = True
    shared_aln: bool = False
    norm_eps: float = 1e-6
    drop_path_rate: float = 0.0
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("depth", "width", "heads", "vocab_size", "latent_channels", "num_classes"):
            require(getattr(self, name) >= 1, f"{name} must be positive, got {getattr(self, name)}")
        require(
            self.width % self.heads == 0,
            f"width {self.width} is not a multiple of the {self.heads} heads",
        )
        require(0.0 <= self.drop_path_rate < 1.0, "drop_path_rate must lie in 0..1")
        require(0.0 <= self.label_dropout < 1.0, "label_dropout must lie in 0..1")

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        """Hidden width of the feed-forward layer."""
        return round(self.width * self.mlp_ratio)

    @property
    def unconditional_label(self) -> int:
        """The label that stands for "no class"."""
        return self.num_classes

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {**dataclasses.asdict(self), "pyramid": list(self.pyramid.sides)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VARConfig:
        """Reads what ``to_dict`` wrote; ``SdvarError`` names unknown and missing fields."""
        require_known_fields(cls, data)
        return cls(**{**data, "pyramid": ScalePyramid(tuple(data["pyramid"]))})

    @classmethod
    def of_depth(cls, depth: int, **overrides: Any) -> VARConfig:
        """The original's scaling rule: width 64 * depth, ``depth`` heads, drop path by depth."""
        values: dict[str, Any] = {
            "depth": depth,
            "width": 64 * depth,
            "heads": depth,
            "drop_path_rate": 0.1 * depth / 24,
        }
        return cls(**{**values, **overrides})
