"""Speculative decoding at the level of scales, as one compiled loop."""

from __future__ import annotations

import dataclasses

from sdvar_jax.config import ScalePyramid, VARConfig
from sdvar_jax.config.validation import require
from sdvar_jax.decoding.base import (
    Checked,
    ClassModulations,
    Decoded,
    Decoder,
    DecodingModels,
    OptimisticDecoder,
)
from sdvar_jax.decoding.request import Request, TokenSampling, with_noise
from sdvar_jax.decoding.speculative.acceptance import AcceptanceRule, Exact
from sdvar_jax.decoding.speculative.alone import OnTrial, run_alone
from sdvar_jax.decoding.speculative.checking import check_window_once
from sdvar_jax.decoding.speculative.cost_model import (
    ALONE,
    DEFAULT_COST,
    FIRST_CHOICE,
    TRIAL,
    CostModel,
    choose_start,
    trial_scales,
)
from sdvar_jax.decoding.speculative.drafting import draft_scales
from sdvar_jax.decoding.speculative.loop import draft_and_check, draft_the_rest, run_loop
from sdvar_jax.decoding.speculative.run import Drafting, SpeculativeRun
from sdvar_jax.decoding.speculative.state import DecodingState, Kept, Proposals, initial_state
from sdvar_jax.decoding.speculative.windows import CheckWindow, WindowPlan, plan_windows
from sdvar_jax.decoding.window import class_modulations
from sdvar_jax.models import VAR, KVCache, Quantizer

ADAPTIVE = "adaptive"
AT_ONCE_BATCH = 4
"""Samples up to which a run may be given to the device as if its first check was its last.

Of more, one is likely to fail, and the pictures of all are in vain; nor does the host's time count.
"""

COMMITS = ("target", "draft")
PROGRESSES = ("per-sample", "minimum")


@dataclasses.dataclass(frozen=True)
class Speculative(OptimisticDecoder):
    """The draft proposes the next scales, the target checks them in one forward.

    Attributes:
      gamma: scales to draft a check: a number, one for each start scale, or "adaptive", which
        chooses by the cost model and the acceptance seen so far.
      accept: when a drafted scale passes.
      commit: tokens of an accepted scale, the "target"'s or the "draft"'s. The two differ under
        relaxed rules alone; there the target's correct single tokens.
      bonus: check one scale more than was drafted: its input is known and it comes for free.
      recycle: after a rejection the target's own tokens for the later scales of the window are the
        next proposals, in place of new drafts.
      refine: the draft makes all scales, the target corrects all of them in one forward, this many
        times at the most; then everything is committed. Implies ``recycle``.
      check_until: check the scales before this one only; the draft alone makes the rest.
      progress: in a batch, "per-sample" keeps what a sample got beyond the slowest one, "minimum"
        takes all samples back to it.
      self_speculative: no draft model; recycled tokens are the only proposals.
      adaptive_gammas: the choices of "adaptive".
      adaptive_overhead: what "adaptive" may lose against the target alone while it finds out how
        much passes, as a share of the target's time by the cost model. It needs 0 among the
        choices, and bounds what is expected from the acceptance seen, which is that of all samples
        together: a draft that passes and then fails, or passes for some samples of a batch alone,
        can lose more, and so can a device on which the loop itself takes time.
      cost: costs of the forwards that "adaptive" goes by.
      begin: how a run of "adaptive" windows begins, as ``settled`` decides it: all is left to the
        target, or the number of the first choice; None leaves it to the loop.
      at_once: whether the first window may be all that there is to check, as ``settled`` finds it.
      trace: keep what happened at each target call.
    """

    gamma: int | tuple[int, ...] | str = 3
    accept: AcceptanceRule = Exact()
    commit: str = "target"
    bonus: bool = True
    recycle: bool = False
    refine: int | None = None
    check_until: int | None = None
    progress: str = "per-sample"
    self_speculative: bool = False
    adaptive_gammas: tuple[int, ...] = (0, 2, 9)
    adaptive_overhead: float = 0.1
    cost: CostModel = DEFAULT_COST
    begin: int | None = None
    at_once: bool = False
    trace: bool = False

    name = "speculative"

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, int | str):
            # Any sequence will do; a tuple can be hashed, as what is compiled in must be.
            object.__setattr__(self, "gamma", tuple(int(gamma) for gamma in self.gamma))
        object.__setattr__(self, "adaptive_gammas", tuple(self.adaptive_gammas))
        if isinstance(self.gamma, str):
            require(
                self.gamma == ADAPTIVE,
                f'gamma must be a number, a list of numbers or "adaptive", got {self.gamma!r}',
            )
        else:
            numbers = (self.gamma,) if isinstance(self.gamma, int) else self.gamma
            lowest = 1 if isinstance(self.gamma, int) else 0
            require(
                len(numbers) > 0 and min(numbers) >= lowest,
                f"gamma must be at least 1 (0 is allowed in a list), got {self.gamma}",
            )
        require(
            self.commit in COMMITS,
            f"unknown commit {self.commit!r}; use one of {', '.join(COMMITS)}",
        )
        require(
            self.progress in PROGRESSES,
            f"unknown progress {self.progress!r}; use one of {', '.join(PROGRESSES)}",
        )
        require(
            self.refine is None or self.refine >= 1,
            f"refine must be at least 1, got {self.refine}",
        )
        require(
            not (self.accept.lossless and self.commit == "draft"),
            f"commit 'draft' changes nothing but statistics under {self.accept.name!r}; "
            "leave it at 'target'",
        )
        require(
            not (self.accept.needs_draft_logits and self.recycles),
            f"{self.accept.name!r} judges by the draft's probabilities, which recycled tokens do "
            "not have; use exact, match or topk with recycle, refine and self-speculation",
        )
        require(
            self.refine is None or self.commit == "target",
            "refine commits the target's tokens; leave commit at 'target'",
        )
        require(
            len(self.adaptive_gammas) > 0 and min(self.adaptive_gammas) >= 0,
            f"adaptive_gammas must be 0 or more, got {self.adaptive_gammas}",
        )
        require(
            self.adaptive_overhead >= 0,
            f"adaptive_overhead must not be negative, got {self.adaptive_overhead}",
        )
        require(
            self.begin is None or self.gamma == ADAPTIVE,
            f"begin is for adaptive windows, and gamma is {self.gamma}",
        )
        ways = FIRST_CHOICE + len(self.adaptive_gammas)
        require(
            self.begin in (None, ALONE, *range(FIRST_CHOICE, ways)),
            f"begin must be {ALONE} or lie in {FIRST_CHOICE}..{ways - 1}, got {self.begin}",
        )
        require(
            not self.at_once or (self.needs_draft and self._first_choice is not None),
            "at_once is for runs that begin with a known window of the draft",
        )
        require(
            not (self.self_speculative and self.check_until is not None),
            "check_until hands over to the draft, and self-speculation has none",
        )

    @property
    def recycles(self) -> bool:
        """Whether the target's tokens behind a rejection are proposed again."""
        return self.recycle or self.refine is not None or self.self_speculative

    @property
    def keeps_drafts(self) -> bool:
        """Whether the draft has seen what was accepted, and drafted all that was proposed.

        An accepted scale may get the target's tokens in place of the draft's under all rules but
        the exact one.
        """
        same = self.commit == "draft" or isinstance(self.accept, Exact)
        return same and not self.recycles

    @property
    def needs_draft(self) -> bool:
        """Whether a draft model must be given."""
        return not self.self_speculative

    @property
    def uses_draft(self) -> bool:
        """Not where all is left to the target."""
        return self.needs_draft and self.begin != ALONE

    @property
    def waits(self) -> bool:
        """Whether a scale passes is known there first; where the target goes alone, all is."""
        return self.begin != ALONE

    @property
    def default_threshold(self) -> float:
        """The acceptance rule's own."""
        return self.accept.default_threshold

    def limit(self, num_scales: int) -> int:
        """Scale behind the last that is checked."""
        return num_scales if self.check_until is None else self.check_until

    def validate(
        self, target: VARConfig, sampling: TokenSampling, threshold: float | None = None
    ) -> None:
        """Refuses settings that do not suit the pyramid, the rule or the sampling."""
        scales = target.pyramid.num_scales
        self.accept.check_threshold(threshold)
        require(
            not sampling.more_smooth,
            "more_smooth feeds mixtures on that no token stands for, so there is nothing to check; "
            "use it with the target, draft or handoff decoder",
        )
        require(
            self.check_until is None or 1 <= self.check_until <= scales,
            f"check_until must lie in 1..{scales}, got {self.check_until}",
        )
        require(
            not isinstance(self.gamma, int) or self.gamma <= scales,
            f"gamma must be at most {scales}, the number of scales, got {self.gamma}",
        )
        require(
            not isinstance(self.gamma, tuple) or len(self.gamma) in (1, self.limit(scales)),
            f"give one gamma for each of the {self.limit(scales)} checked scales, got {self.gamma}",
        )

    def settled(
        self, pyramid: ScalePyramid, batch: int, acceptance_seen: tuple[float, float]
    ) -> Decoder:
        """How a run begins is decided once: what is asked in the loop costs more on a GPU.

        Adaptive windows that may leave all to the target begin as earlier runs advise.
        """
        begun = self._begun(pyramid, batch, acceptance_seen)
        if batch > AT_ONCE_BATCH or not isinstance(begun, Speculative) or not begun.uses_draft:
            return begun
        plan = begun.plan(pyramid)
        first = begun._first(plan)
        decided = plan.decided_until(pyramid.num_scales, keeps_drafts=begun.keeps_drafts)
        if first is None or first.window.stop < decided:
            return begun
        return dataclasses.replace(begun, at_once=True)

    def _begun(
        self, pyramid: ScalePyramid, batch: int, acceptance_seen: tuple[float, float]
    ) -> Decoder:
        """With ``begin`` as earlier runs advise, or the draft on trial."""
        everywhere = self.limit(pyramid.num_scales) == pyramid.num_scales
        if self.gamma != ADAPTIVE or not self.needs_draft or not everywhere:
            return self
        if 0 not in self.adaptive_gammas or max(self.adaptive_gammas) == 0:
            return self
        plan = self.plan(pyramid)
        begin = choose_start(
            plan, pyramid, self.cost, batch, *acceptance_seen, self.adaptive_overhead
        )
        if begin == TRIAL:
            tried = trial_scales(pyramid, self.cost, self.adaptive_overhead)
            return OnTrial(self.accept, tried, self.trace)
        return dataclasses.replace(self, begin=begin)

    def plan(self, pyramid: ScalePyramid) -> WindowPlan:
        """The windows that may be checked."""
        limit = self.limit(pyramid.num_scales)
        if self.refine is not None:
            options: tuple[tuple[int, ...], ...] = ((pyramid.num_scales,),) * limit
        elif self.gamma == ADAPTIVE:
            options = (self.adaptive_gammas,) * limit
        elif isinstance(self.gamma, int):
            options = ((self.gamma,),) * limit
        else:
            gammas = self.gamma * limit if len(self.gamma) == 1 else self.gamma
            options = tuple((int(gamma),) for gamma in gammas)
        return plan_windows(options, limit, self.bonus)

    def decode(self, models: DecodingModels, request: Request, sampling: TokenSampling) -> Decoded:
        """Makes all token maps of a batch."""
        if self.begin == ALONE:
            state = run_alone(models, request, sampling, self.accept, trace=self.trace)
            return _decoded(state)
        draft = models.draft if self.needs_draft else None
        config = models.target.config
        request = with_noise(request, config.pyramid, config.vocab_size)
        run = self._run(dataclasses.replace(models, draft=draft), request, sampling)
        rows = run.target_modulations.condition.shape[0]
        state = initial_state(
            config,
            models.quantizer,
            request,
            target_cache=models.target.make_cache(rows, run.plan.limit),
            draft_cache=None if draft is None else _draft_cache(draft, rows, run.plan),
            keep_draft_logits=self.accept.needs_draft_logits,
            trace=self.trace,
        )
        if run.first is not None:
            state = draft_and_check(run, state, run.first)
        return _decoded(draft_the_rest(run, run_loop(run, state)))

    def propose(
        self, draft: VAR, quantizer: Quantizer, request: Request, sampling: TokenSampling
    ) -> Proposals:
        """The drafted scales of the first window."""
        config = draft.config
        plan = self.plan(config.pyramid)
        first = self._first(plan)
        assert first is not None
        request = with_noise(request, config.pyramid, config.vocab_size)
        assert request.noise is not None
        modulations = class_modulations(draft, request, sampling)
        state = initial_state(
            config,
            quantizer,
            request,
            draft_cache=_draft_cache(draft, modulations.condition.shape[0], plan),
            keep_draft_logits=self.accept.needs_draft_logits,
            trace=self.trace,
        )
        drafting = Drafting(draft, quantizer, modulations, request, sampling)
        state = draft_scales(drafting, state, first.drafted_scales)
        return Proposals(state=state, modulations=modulations, noise=request.noise)

    def check(
        self,
        models: DecodingModels,
        proposals: Proposals,
        request: Request,
        sampling: TokenSampling,
    ) -> Checked:
        """The first window, and what follows it where all of it passes."""
        request = request.replace(noise=proposals.noise)
        modulations = ClassModulations(
            target=class_modulations(models.target, request, sampling), draft=proposals.modulations
        )
        run = self._run(dataclasses.replace(models, given=modulations), request, sampling)
        assert run.first is not None
        rows = run.target_modulations.condition.shape[0]
        target_cache = models.target.make_cache(rows, run.plan.limit)
        state = proposals.state.replace(target_cache=target_cache)
        state = check_window_once(run, state, checked=run.first)
        ended = draft_the_rest(run, state)
        # What the draft's cache holds beyond the committed scales is never read.
        state = state.replace(draft_cache=ended.draft_cache)
        return Checked(
            decoded=_decoded(ended),
            through=state.committed >= run.decided_until,
            state=state,
            kept=Kept(modulations=modulations, noise=proposals.noise),
        )

    def go_on(
        self,
        models: DecodingModels,
        state: DecodingState,
        kept: Kept,
        request: Request,
        sampling: TokenSampling,
    ) -> tuple[Decoded, DecodingState]:
        """The windows behind the first."""
        request = request.replace(noise=kept.noise)
        run = self._run(dataclasses.replace(models, given=kept.modulations), request, sampling)
        state = draft_the_rest(run, run_loop(run, state))
        return _decoded(state), state

    def _run(
        self, models: DecodingModels, request: Request, sampling: TokenSampling
    ) -> SpeculativeRun:
        """What stays the same."""
        draft, plan = models.draft, self.plan(models.target.config.pyramid)
        return SpeculativeRun(
            models=models,
            target_modulations=models.modulations(models.target, request, sampling),
            draft_modulations=(
                None if draft is None else models.modulations(draft, request, sampling)
            ),
            request=request,
            sampling=sampling,
            rule=self.accept,
            plan=plan,
            keeps_drafts=self.keeps_drafts,
            commit_draft=self.commit == "draft",
            recycle=self.recycles,
            per_sample=self.progress == "per-sample",
            refine=self.refine,
            first=self._first(plan),
            cost=self.cost,
            overhead=self.adaptive_overhead,
        )

    def _first(self, plan: WindowPlan) -> CheckWindow | None:
        """The window that begins a run, where it is known beforehand."""
        choice = self._first_choice
        return None if choice is None else plan.at(0, choice)

    @property
    def _first_choice(self) -> int | None:
        """Which of the choices at the first scale begins a run; None where the loop decides."""
        if self.begin is not None:
            return None if self.begin == ALONE else self.begin - FIRST_CHOICE
        several = self.gamma == ADAPTIVE and self.refine is None and len(self.adaptive_gammas) > 1
        return None if several else 0


def _draft_cache(draft: VAR, rows: int, plan: WindowPlan) -> KVCache:
    """Room for what the draft makes."""
    return draft.make_cache(rows, plan.asked_of_draft(draft.config.pyramid.num_scales))


def _decoded(state: DecodingState) -> Decoded:
    """What a run made."""
    return Decoded(
        tokens=state.tokens, f_hats=state.f_hats, counters=state.counters, trace=state.trace
    )
