"""What stays the same through one speculative run."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding.base import DecodingModels
from sdvar_jax.decoding.request import Request, TokenSampling
from sdvar_jax.decoding.speculative.acceptance import AcceptanceRule
from sdvar_jax.decoding.speculative.cost_model import DEFAULT_COST, CostModel
from sdvar_jax.decoding.speculative.windows import CheckWindow, WindowPlan
from sdvar_jax.models import VAR, Modulations, Quantizer


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
class Drafting:
    """What the draft proposes with; the target has no part in it.

    Attributes:
      model: the draft.
      quantizer: shared with the target.
      modulations: the draft's class modulations.
      request: the run's arrays.
      sampling: what of sampling is compiled in.
    """

    model: VAR
    quantizer: Quantizer
    modulations: Modulations
    request: Request
    sampling: TokenSampling

    @property
    def pyramid(self) -> ScalePyramid:
        """The scales."""
        return self.model.config.pyramid


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
      keeps_drafts: the draft has seen all tokens of accepted scales, and drafted all proposals.
      commit_draft: accepted scales keep the draft's tokens; else the target's are committed.
      recycle: the target's tokens behind a rejection are the next proposals.
      per_sample: samples keep what they got beyond the slowest one.
      refine: after this many target calls everything is committed; None for no bound.
      first: the window that the run begins with; None where the loop chooses it.
      cost: costs of the forwards that adaptive windows go by.
      overhead: what they may lose, see ``Speculative.adaptive_overhead``.
    """

    models: DecodingModels
    target_modulations: Modulations
    draft_modulations: Modulations | None
    request: Request
    sampling: TokenSampling
    rule: AcceptanceRule
    plan: WindowPlan
    keeps_drafts: bool = False
    commit_draft: bool = False
    recycle: bool = False
    per_sample: bool = True
    refine: int | None = None
    first: CheckWindow | None = None
    cost: CostModel = DEFAULT_COST
    overhead: float = 0.0

    @property
    def pyramid(self) -> ScalePyramid:
        """The scales."""
        return self.models.target.config.pyramid

    @property
    def decided_until(self) -> int:
        """The scale that the loop ends at, see ``WindowPlan.decided_until``."""
        scales = self.pyramid.num_scales
        return self.plan.decided_until(scales, keeps_drafts=self.keeps_drafts)

    @property
    def proposed_until(self) -> int:
        """The scale behind the last that the draft makes in the loop."""
        all_checked = self.decided_until == self.plan.limit
        return self.plan.drafted_stop if all_checked else self.pyramid.num_scales

    @property
    def drafting(self) -> Drafting | None:
        """What scales are drafted with; None without a draft."""
        if self.models.draft is None:
            return None
        assert self.draft_modulations is not None
        return Drafting(
            model=self.models.draft,
            quantizer=self.models.quantizer,
            modulations=self.draft_modulations,
            request=self.request,
            sampling=self.sampling,
        )

    @property
    def judging(self) -> Judging:
        """What drafted scales are judged by."""
        return Judging(
            request=self.request, sampling=self.sampling, rule=self.rule, pyramid=self.pyramid
        )
