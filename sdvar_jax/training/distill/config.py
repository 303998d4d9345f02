"""Settings of draft distillation."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config.validation import require
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training.config import OptimizerConfig, RunConfig
from sdvar_jax.training.var.attention import ATTENTIONS


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Everything that moves a draft towards a target.

    Attributes:
      run: length and habits.
      optimizer: how the weights move.
      sampling: guidance and filtering that the pair will be used with; the target's own samples
        are drawn with it and agreement is measured with it.
      cfg_range: guidance strengths to distil at; each picture draws its own. None for the strength
        of ``sampling`` alone.
      own_share: share of a batch that the target drew itself; the rest is data.
      own_samples: pictures that the target draws for it beforehand.
      sample_batch: pictures drawn in one program call.
      cross_entropy: weight of the ordinary loss on the tokens, without guidance.
      temperature: of both distributions in the divergence.
      filtered: the target's distribution is the one that it samples from, after top-k and top-p;
        else the whole one.
      scale_power: weight of the scales, see ``VARTrainingConfig``.
      measured: pictures on which agreement is measured before and after.
      balance: how often pictures are drawn, see ``training.balance``.
      class_power: see ``training.balance``.
      attention: see ``VARTrainingConfig``.
      remat: see ``VARTrainingConfig``.
      scan: see ``VARTrainingConfig``.
    """

    run: RunConfig
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    sampling: SamplingConfig = SamplingConfig()
    cfg_range: tuple[float, float] | None = None
    own_share: float = 0.5
    own_samples: int = 4096
    sample_batch: int = 128
    cross_entropy: float = 0.0
    temperature: float = 1.0
    filtered: bool = True
    scale_power: float = 1.0
    measured: int = 128
    balance: str = "none"
    class_power: float = 1.0
    attention: str = "auto"
    remat: bool = True
    scan: bool = True

    def __post_init__(self) -> None:
        require(0 <= self.own_share <= 1, f"own_share must lie in 0..1, got {self.own_share}")
        require(
            self.own_share == 0 or self.own_samples >= 1,
            "own_samples must be positive where own_share is",
        )
        require(self.sample_batch >= 1, f"sample_batch must be positive: {self.sample_batch}")
        require(self.cross_entropy >= 0, "cross_entropy must not be negative")
        require(self.temperature > 0, f"temperature must be positive, got {self.temperature}")
        require(0 <= self.scale_power <= 1, "scale_power must lie in 0..1")
        require(self.measured >= 1, f"measured must be positive, got {self.measured}")
        require(
            self.attention in ATTENTIONS,
            f"unknown attention {self.attention!r}; use one of {', '.join(ATTENTIONS)}",
        )
        require(
            not self.sampling.more_smooth,
            "distillation needs tokens; turn more_smooth off",
        )
        if self.cfg_range is not None:
            low, high = self.cfg_range
            require(0 <= low <= high, f"cfg_range must be two growing strengths: {self.cfg_range}")

    @property
    def strengths(self) -> tuple[float, float]:
        """Smallest and largest guidance strength."""
        return self.cfg_range or (self.sampling.cfg, self.sampling.cfg)
