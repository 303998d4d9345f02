"""The decoders that are measured, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from benchmarks.planned_acceptance import PlannedAcceptance
from sdvar_jax.config.validation import require
from sdvar_jax.decoding import Decoder, DraftOnly, Handoff, TargetOnly
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.speculative.cost_model import DEFAULT_COST, CostModel
from sdvar_jax.decoding.speculative.decoder import ADAPTIVE

FULL = 1.0
KNOWN = 1000
"""Drafted scales judged in earlier calls, where it is known what passes."""
# In the order in which they run.
GROUPS = (
    "floor",
    "windows",
    "target",
    "draft",
    "handoff",
    "exact",
    "until",
    "adaptive",
    "acceptance",
    "phases",
    "forwards",
)
# The groups that need no draft.
_SPECULATIVE = ("exact", "until", "adaptive")
_TARGET_GROUPS = ("floor", "target", "phases", "forwards")


@dataclasses.dataclass(frozen=True)
class Case:
    """One decoder, measured at one or more planned acceptances.

    Attributes:
      name: as it stands in the results.
      decoder: what runs.
      acceptances: planned probabilities that a drafted scale passes; one program serves all.
    """

    name: str
    decoder: Decoder
    acceptances: tuple[float | None, ...] = (None,)

    @property
    def learns(self) -> bool:
        """Whether what earlier calls saw decides what a call does."""
        return isinstance(self.decoder, Speculative) and self.decoder.gamma == ADAPTIVE


@dataclasses.dataclass(frozen=True)
class Choices:
    """What of the suite is wanted.

    Attributes:
      groups: names out of ``GROUPS``.
      gamma: scales to draft a check.
      until: scale behind the last that is checked where the draft makes the rest.
      entry: scale of the handoff.
      acceptances: of the curve.
      adaptive_gammas: what adaptive windows choose from.
      adaptive_overhead: what they may lose, as a share of the target's time.
      cost: what adaptive windows go by.
    """

    groups: tuple[str, ...] = GROUPS
    gamma: int = 10
    until: int = 7
    entry: int = 7
    acceptances: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    adaptive_gammas: tuple[int, ...] = Speculative.adaptive_gammas
    adaptive_overhead: float = Speculative.adaptive_overhead
    cost: CostModel = DEFAULT_COST

    def wants(self, group: str) -> bool:
        """Whether a group is wanted."""
        return group in self.groups


def chosen_groups(only: Sequence[str] | None) -> tuple[str, ...]:
    """The groups named, in the suite's order; all without names.

    "acceptance" alone is no decoder: it asks for the curve of those that are named, of all
    speculative ones if none is.
    """
    unknown = sorted(set(only or ()) - set(GROUPS))
    require(not unknown, f"unknown case {', '.join(unknown)}; use some of {', '.join(GROUPS)}")
    wanted = set(GROUPS if only is None else only)
    if "acceptance" in wanted and not wanted & set(_SPECULATIVE):
        wanted |= set(_SPECULATIVE)
    return tuple(group for group in GROUPS if group in wanted)


def needs_draft(groups: Iterable[str]) -> bool:
    """Whether any of the groups needs a draft model."""
    return any(group not in _TARGET_GROUPS for group in groups)


def decoding_cases(choices: Choices, num_scales: int) -> tuple[Case, ...]:
    """The decoders to measure, the target alone first."""
    gamma = min(choices.gamma, num_scales)
    until, entry = min(choices.until, num_scales - 1), min(choices.entry, num_scales - 1)
    planned, cases = PlannedAcceptance(), []
    if choices.wants("target"):
        cases.append(Case("target", TargetOnly()))
    if choices.wants("draft"):
        cases.append(Case("draft", DraftOnly()))
    if choices.wants("handoff"):
        cases += [
            Case(f"handoff {order} at {entry}", Handoff(entry, order))
            for order in ("target-draft", "draft-target")
        ]
    points = _points(choices)
    if choices.wants("until"):
        decoder = Speculative(
            gamma=min(gamma, until), accept=planned, commit="draft", check_until=until
        )
        cases.append(Case(f"exact until {until}", decoder, points))
    if choices.wants("exact"):
        decoder = Speculative(gamma=gamma, accept=planned, commit="draft")
        cases.append(Case(f"exact, gamma {gamma}", decoder, points))
    if choices.wants("adaptive"):
        decoder = Speculative(
            gamma="adaptive",
            accept=planned,
            commit="draft",
            adaptive_gammas=choices.adaptive_gammas,
            adaptive_overhead=choices.adaptive_overhead,
            cost=choices.cost,
        )
        cases.append(Case("adaptive", decoder, points))
    return tuple(cases)


def _points(choices: Choices) -> tuple[float, ...]:
    """Full acceptance, and the curve if that is wanted."""
    curve = choices.acceptances if choices.wants("acceptance") else ()
    return tuple(sorted({FULL, *curve}, reverse=True))
