"""From the sampling options of a command line to settings."""

from __future__ import annotations

import dataclasses

from sdvar_jax.cli.choices import GuidanceSchedule
from sdvar_jax.sampling.config import SamplingConfig


@dataclasses.dataclass(frozen=True)
class SamplingOptions:
    """What the user said about sampling; None where nothing was said.

    Attributes:
      cfg: strength of guidance.
      top_k: most likely tokens to draw from.
      top_p: probability of the tokens to draw from.
      more_smooth: mix codebook entries.
      guidance_schedule: how guidance grows.
      guidance_until: scales that are guided.
    """

    cfg: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    more_smooth: bool | None = None
    guidance_schedule: GuidanceSchedule | None = None
    guidance_until: int | None = None

    def build(self, defaults: SamplingConfig) -> SamplingConfig:
        """The settings: what was said, else the default."""
        said = dataclasses.asdict(self)
        if self.guidance_schedule is not None:
            said["guidance_schedule"] = str(self.guidance_schedule)
        return defaults.updated(**said)
