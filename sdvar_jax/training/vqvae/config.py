"""Settings of VQVAE training."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config import VQVAEConfig
from sdvar_jax.config.validation import require
from sdvar_jax.training.config import OptimizerConfig, RunConfig


@dataclasses.dataclass(frozen=True)
class VQVAELossConfig:
    """The parts of the loss and their weights.

    Attributes:
      l1: absolute error of pixels in [-1, 1].
      l2: squared error of pixels.
      edges: absolute error of the differences between neighbouring pixels, which keeps outlines
        sharp where a perceptual network cannot be had.
      quantization: the quantizer's own loss (VQ and commitment).
      commitment: weight of the features' pull to f_hat within it, VAR's beta.
    """

    l1: float = 1.0
    l2: float = 1.0
    edges: float = 0.5
    quantization: float = 1.0
    commitment: float = 0.25

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(value >= 0, f"the weight {field.name} must not be negative, got {value}")
        require(self.l1 + self.l2 > 0, "l1 or l2 must be positive: nothing else fixes the pixels")


@dataclasses.dataclass(frozen=True)
class RevivalConfig:
    """How unused codebook entries come back.

    Attributes:
      every: steps between looks; 0 never revives.
      below: an entry used less than this many times a batch (moving average) is re-seeded.
      until: share of the run after which the codebook is left alone.
      usage_decay: of the moving average of use.
    """

    every: int = 20
    below: float = 0.2
    until: float = 0.6
    usage_decay: float = 0.98

    def __post_init__(self) -> None:
        require(self.every >= 0, f"revival.every must not be negative, got {self.every}")
        require(self.below >= 0, f"revival.below must not be negative, got {self.below}")
        require(0 <= self.until <= 1, f"revival.until must lie in 0..1, got {self.until}")
        require(0 <= self.usage_decay < 1, "revival.usage_decay must lie in 0..1")


@dataclasses.dataclass(frozen=True)
class VQVAETrainingConfig:
    """Everything that makes a VQVAE from pictures.

    Attributes:
      model: its shapes.
      run: length and habits.
      optimizer: how the weights move.
      loss: weights of the loss's parts.
      revival: of unused codebook entries.
      balance: how often pictures are drawn, see ``training.balance``.
      turn: share of the pictures that are mirrored or turned at random: more shapes for the
        codebook. Only the VQVAE sees them.
    """

    model: VQVAEConfig
    run: RunConfig
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    loss: VQVAELossConfig = VQVAELossConfig()
    revival: RevivalConfig = RevivalConfig()
    balance: str = "none"
    turn: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.turn <= 1, f"turn must lie in 0..1, got {self.turn}")
