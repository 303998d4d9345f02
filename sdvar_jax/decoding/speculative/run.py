"""What stays the same through one speculative run."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding.base import DecodingModels
from sdvar_jax.decoding.request import Request, TokenSampling
from sdvar_jax.decoding.speculative.acceptance import AcceptanceRule
from sdvar_jax.decoding.speculative.windows import WindowPlan
from sdvar_jax.models import Modulations


@dataclasses.dataclass(frozen=True)
class Judging:
    """What decides whether a drafted scale passes, besides what the models say.

    Attributes:
      request: the run's arrays.
      sampling: what of sampling is compiled in.
      rule: when a drafted scale passes.
      pyramid: the scales.
    """

    request: Request
    sampling: TokenSampling
    rule: AcceptanceRule
    pyramid: ScalePyramid


@dataclasses.dataclass(frozen=True)
class SpeculativeRun:
    """Models, inputs and settings of a run; closed over by the loop, never carried.

    Attributes:
      models: target, quantizer and, unless the target speculates by itself, the draft.
      target_modulations: the target's class modulations.
      draft_modulations: the draft's, or None.
      request: the run's arrays.
      sampling: what of sampling is compiled in.
      rule: when a drafted scale passes.
      plan: the windows that may be checked.
      commit_draft: accepted scales keep the draft's tokens; else the target's are committed.
      recycle: the target's tokens behind a rejection are the next proposals.
      per_sample: samples keep what they got beyond the slowest one.
      refine: after this many target calls everything is committed; None for no bound.
    """

    models: DecodingModels
    target_modulations: Modulations
    draft_modulations: Modulations | None
    request: Request
    sampling: TokenSampling
    rule: AcceptanceRule
    plan: WindowPlan
    commit_draft: bool
    recycle: bool
    per_sample: bool
    refine: int | None

    @property
    def pyramid(self) -> ScalePyramid:
        """The scales."""
        return self.models.target.config.pyramid

    @property
    def judging(self) -> Judging:
        """What drafted scales are judged by."""
        return Judging(
            request=self.request, sampling=self.sampling, rule=self.rule, pyramid=self.pyramid
        )
