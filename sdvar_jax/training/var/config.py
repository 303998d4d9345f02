"""Settings of VAR training."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config import ScalePyramid, VARConfig
from sdvar_jax.config.validation import require
from sdvar_jax.training.config import OptimizerConfig, RunConfig
from sdvar_jax.training.var.attention import ATTENTIONS


@dataclasses.dataclass(frozen=True)
class TokenNoiseConfig:
    """Teacher forcing from tokens that are a little off (self-correction).

    In sampling a scale is made from scales that the model drew itself and that no picture has: the
    tokens of a scale are drawn independently, so that the second scale can mix several pictures.
    So that training sees such prefixes, some tokens of the input are taken nearest to a disturbed
    vector, or drawn by the model itself from the scales so far (scheduled sampling), and the wanted
    tokens of later scales are those that make the best of it, as the tokenizer itself would.

    Attributes:
      share: largest share of disturbed tokens; each picture draws its own share from 0 to this.
      strength: of the disturbance, in units of the quantization error at that scale.
      own_share: largest share of tokens that the model draws itself, likewise.
      own_scales: the last scale with own tokens, counted from 1. The first one has none. Each costs
        a forward pass of the scales up to it, which the first few hardly do.
    """

    share: float = 0.0
    strength: float = 1.0
    own_share: float = 0.0
    own_scales: int = 5

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, f"token_noise.share must lie in 0..1, got {self.share}")
        require(self.strength >= 0, f"token_noise.strength must not be negative: {self.strength}")
        require(
            0 <= self.own_share <= 1,
            f"token_noise.own_share must lie in 0..1, got {self.own_share}",
        )
        require(
            self.own_scales >= 2,
            f"token_noise.own_scales must be at least 2, got {self.own_scales}",
        )

    @property
    def active(self) -> bool:
        """Whether any token is changed."""
        return self.share > 0 or self.own_share > 0


@dataclasses.dataclass(frozen=True)
class VARTrainingConfig:
    """Everything that makes a VAR from tokens.

    Attributes:
      model: its shapes, and label dropout and drop path.
      run: length and habits.
      optimizer: how the weights move.
      label_smoothing: share of the wanted distribution spread over all tokens.
      scale_power: scale k weighs in the loss as its number of tokens to this power; 1 weighs every
        token alike, as VAR does; less gives the coarse scales, which hold few tokens, more.
      token_noise: disturbed inputs and the model's own tokens.
      scales: train on the first so many scales alone (the original's progressive training): they
        hold few of the tokens and most of what is seen, and no token sees a later scale. None for
        all; a run on all scales should follow.
      balance: how often pictures are drawn, see ``training.balance``.
      class_power: see ``training.balance``.
      attention: "auto" takes cuDNN's where it runs, else "xla".
      remat: keep the results of matrix products alone for the backward pass and make the rest
        again: much less memory.
      scan: compile one block and run it ``depth`` times: compiles much faster.
    """

    model: VARConfig
    run: RunConfig
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    label_smoothing: float = 0.0
    scale_power: float = 1.0
    token_noise: TokenNoiseConfig = TokenNoiseConfig()
    scales: int | None = None
    balance: str = "none"
    class_power: float = 1.0
    attention: str = "auto"
    remat: bool = True
    scan: bool = True

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 1, "label_smoothing must lie in 0..1")
        require(0 <= self.scale_power <= 1, "scale_power must lie in 0..1")
        most = self.model.pyramid.num_scales
        require(
            self.scales is None or 2 <= self.scales <= most,
            f"scales must lie in 2..{most}, got {self.scales}",
        )
        require(
            self.attention in ATTENTIONS,
            f"unknown attention {self.attention!r}; use one of {', '.join(ATTENTIONS)}",
        )

    @property
    def trained_pyramid(self) -> ScalePyramid:
        """The scales that are trained on."""
        pyramid = self.model.pyramid
        return pyramid if self.scales is None else pyramid.first_scales(self.scales)
