"""How tokens are drawn from logits."""

from __future__ import annotations

import dataclasses
from typing import Any

from sdvar_jax.config.validation import require

GUIDANCE_SCHEDULES = ("linear", "constant")


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Guidance and filtering of one request.

    Attributes:
      cfg: strength of classifier-free guidance; 0 turns it off and saves half the arithmetic.
      top_k: keep the k most likely tokens; 0 keeps all.
      top_p: keep the smallest set of tokens whose probability exceeds p; 0 keeps all.
      more_smooth: feed a Gumbel-softmax mixture of codebook entries on instead of the drawn token's
        entry: smoother pictures, not for measuring (VAR's demo).
      guidance_schedule: "linear" grows from 0 at the first scale to ``cfg`` at the last, as the
        original does; "constant" uses ``cfg`` at every scale.
      guidance_until: scales from this one on run without guidance and without the unconditional
        half of the batch; None guides all.
    """

    cfg: float = 1.5
    top_k: int = 900
    top_p: float = 0.96
    more_smooth: bool = False
    guidance_schedule: str = "linear"
    guidance_until: int | None = None

    def __post_init__(self) -> None:
        require(self.cfg >= 0, f"cfg must not be negative, got {self.cfg}")
        require(self.top_k >= 0, f"top_k must not be negative (0 keeps all), got {self.top_k}")
        require(0 <= self.top_p <= 1, f"top_p must lie in 0..1 (0 keeps all), got {self.top_p}")
        require(
            self.guidance_schedule in GUIDANCE_SCHEDULES,
            f"unknown guidance schedule {self.guidance_schedule!r}; "
            f"use one of {', '.join(GUIDANCE_SCHEDULES)}",
        )
        require(
            self.guidance_until is None or self.guidance_until >= 0,
            f"guidance_until must not be negative, got {self.guidance_until}",
        )

    def updated(self, **said: Any) -> SamplingConfig:
        """These settings with those of ``said`` that are not None."""
        given = {name: value for name, value in said.items() if value is not None}
        return dataclasses.replace(self, **given)
