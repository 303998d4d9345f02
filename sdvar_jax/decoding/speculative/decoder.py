"""Speculative decoding at the level of scales, as one compiled loop."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config import ScalePyramid, VARConfig
from sdvar_jax.config.validation import require
from sdvar_jax.decoding.base import Decoded, Decoder, DecodingModels
from sdvar_jax.decoding.request import Request, TokenSampling, with_noise
from sdvar_jax.decoding.speculative.acceptance import AcceptanceRule, Exact
from sdvar_jax.decoding.speculative.alone import OnTrial, run_alone
from sdvar_jax.decoding.speculative.checking import check_window_once
from sdvar_jax.decoding.speculative.commit import commit_unchecked
from sdvar_jax.decoding.speculative.cost_model import (
    ALONE,
    DEFAULT_COST,
    FIRST_CHOICE,
    TRIAL,
    CostModel,
    Spent,
    acceptance_estimates,
    choose_start,
    choose_window,
    trial_scales,
)
from sdvar_jax.decoding.speculative.drafting import draft_scales, propose_until
from sdvar_jax.decoding.speculative.run import SpeculativeRun
from sdvar_jax.decoding.speculative.state import DecodingState, initial_state
from sdvar_jax.decoding.speculative.windows import (
    CALLS_ALONE,
    CheckWindow,
    WindowPlan,
    plan_windows,
)

ADAPTIVE = "adaptive"
COMMITS = ("target", "draft")
PROGRESSES = ("per-sample", "minimum")


@dataclasses.dataclass(frozen=True)
class Speculative(Decoder):
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
            not (self.self_speculative and self.check_until is not None),
            "check_until hands over to the draft, and self-speculation has none",
        )

    @property
    def recycles(self) -> bool:
        """Whether the target's tokens behind a rejection are proposed again."""
        return self.recycle or self.refine is not None or self.self_speculative

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
        """Adaptive windows that may leave all to the target begin as earlier runs advise.

        Else what comes next is asked in the loop, which on a GPU costs more than a draft is worth
        where few of its scales pass.
        """
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
        pyramid = models.target.config.pyramid
        request = with_noise(request, pyramid, models.target.config.vocab_size)
        run = SpeculativeRun(
            models=dataclasses.replace(models, draft=draft),
            target_modulations=models.modulations(models.target, request, sampling),
            draft_modulations=(
                None if draft is None else models.modulations(draft, request, sampling)
            ),
            request=request,
            sampling=sampling,
            rule=self.accept,
            plan=self.plan(pyramid),
            commit_draft=self.commit == "draft",
            recycle=self.recycles,
            per_sample=self.progress == "per-sample",
            refine=self.refine,
        )
        state = initial_state(
            models.target,
            draft,
            models.quantizer,
            request,
            rows=run.target_modulations.condition.shape[0],
            max_calls=pyramid.num_scales,
            keep_draft_logits=self.accept.needs_draft_logits,
            trace=self.trace,
        )
        return _decoded(self._run_all(run, state))

    def _run_all(self, run: SpeculativeRun, state: DecodingState) -> DecodingState:
        """Window after window; what can be laid out beforehand stands outside the loop.

        On a GPU each turn of the loop and each branch chosen costs a round trip to the host and the
        launch of all its kernels, which then cannot hide behind the work before it. The first
        window begins at the first scale, whatever happens, and where the draft has seen all that
        is committed, the scales behind the last checked one follow in one go.
        """
        plan, scales = run.plan, run.pyramid.num_scales
        first = 0 if plan.choices == 1 else None
        if self.begin is not None:
            first = self.begin - FIRST_CHOICE
        fixed_end = plan.limit < scales and self._draft_is_up_to_date(plan)
        if first is not None:
            state = self._draft_and_check(run, plan.at(0, first), state)
        start, stop = int(first is not None), plan.limit if fixed_end else scales
        if start < stop:
            state = jax.lax.while_loop(
                lambda state: state.committed < stop,
                functools.partial(self._step, run, start, stop),
                state,
            )
        if fixed_end:
            state = draft_scales(run, state, range(plan.limit, scales))
            state = commit_unchecked(run, state)
        return state

    def _draft_and_check(
        self, run: SpeculativeRun, checked: CheckWindow, state: DecodingState
    ) -> DecodingState:
        """A window whose start is known; if it drafts, the draft has seen all scales before it."""
        state = draft_scales(run, state, range(checked.window.start, checked.drafted_stop))
        return check_window_once(run, state, checked=checked)

    def _step(
        self, run: SpeculativeRun, start: int, stop: int, state: DecodingState
    ) -> DecodingState:
        """Drafts and checks the windows of a turn; behind the last checked scale, drafts the rest.

        The scales committed before it lie in start..stop - 1.
        """
        plan, scales = run.plan, run.pyramid.num_scales
        turns = [plan.turn(s, c) for s in range(start, plan.limit) for c in range(plan.choices)]
        branches = [functools.partial(_check_windows, run, windows) for windows in turns]
        stops = [windows[0].drafted_stop for windows in turns]
        index = (state.committed - start) * plan.choices
        if plan.choices > 1:
            index = index + self._choice(run, state)
        if plan.limit < stop:
            branches.append(functools.partial(commit_unchecked, run))
            stops.append(scales)
            index = jnp.where(state.committed >= plan.limit, len(turns), index)
        if run.models.draft is not None:
            until = jnp.asarray(np.asarray(stops, np.int32))[index]
            state = propose_until(run, state, until, catches_up=self._draft_may_lag(plan))
        return jax.lax.switch(index, branches, state)

    def _draft_may_lag(self, plan: WindowPlan) -> bool:
        """Whether scales get tokens that the draft did not make itself."""
        undrafted = any(checked.drafted_stop < checked.window.stop for checked in plan.windows)
        return undrafted or self.recycles

    def _draft_is_up_to_date(self, plan: WindowPlan) -> bool:
        """Whether the draft's cache is always valid up to the last committed scale.

        It is not where an accepted scale gets other tokens than the draft's, which the target's
        may be under all rules but the exact one.
        """
        keeps_drafts = self.commit == "draft" or isinstance(self.accept, Exact)
        return keeps_drafts and not self._draft_may_lag(plan)

    def _choice(self, run: SpeculativeRun, state: DecodingState) -> jax.Array:
        """The adaptive choice, from the share of judged scales that passed.

        That is the share of one sample: all of the batch are pooled, and those of earlier batches
        count like those of this one so far.
        """
        counters = state.counters
        accepted = jnp.sum(counters.accepted) + run.request.acceptance_seen[0]
        rejected = jnp.sum(counters.rejected)
        judged = jnp.sum(counters.accepted) + rejected + run.request.acceptance_seen[1]
        spent = Spent(
            committed=state.committed,
            draft_length=state.draft_length,
            draft_calls=counters.draft_calls,
            draft_tokens=counters.draft_tokens,
            target_calls=counters.target_calls,
            target_tokens=counters.target_tokens,
            # A turn of the target alone is several of its calls.
            turns=counters.drafts + (counters.target_calls - counters.drafts) / CALLS_ALONE,
        )
        acceptance, proven = acceptance_estimates(accepted, judged)
        return choose_window(
            run.plan,
            run.pyramid,
            self.cost,
            spent,
            state.at_stake,
            acceptance,
            proven,
            self.adaptive_overhead,
        )


def _check_windows(
    run: SpeculativeRun, windows: tuple[CheckWindow, ...], state: DecodingState
) -> DecodingState:
    """Checks windows that follow each other, see ``WindowPlan.turn``."""
    for checked in windows:
        state = check_window_once(run, state, checked=checked)
    return state


def _decoded(state: DecodingState) -> Decoded:
    """What a run made."""
    return Decoded(
        tokens=state.tokens, f_hats=state.f_hats, counters=state.counters, trace=state.trace
    )
