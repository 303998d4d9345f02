"""The rows of the table of decoders, the most important ones first."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sdvar_jax.config.validation import require
from sdvar_jax.decoding import Decoder, DraftOnly, Handoff, TargetOnly
from sdvar_jax.decoding.speculative import Exact, Match, Residual, Speculative

TARGET = "target"
GROUPS = ("target", "draft", "exact", "until", "match", "refine", "handoff", "residual", "more")
_GAMMAS = (9, 6, 3)
_UNTIL = (5, 7)
_THRESHOLDS = (0.5, 0.7, 0.9)
_REFINEMENTS = (1, 2, 3)
_ENTRIES = (5, 7)
_ORDERS = ("target-draft", "draft-target")


@dataclasses.dataclass(frozen=True)
class Row:
    """One decoder of the table.

    Attributes:
      name: as the table calls it.
      group: one of ``GROUPS``.
      decoder: what is compiled in.
      threshold: the acceptance rule's dial.
    """

    name: str
    group: str
    decoder: Decoder
    threshold: float = 1.0

    @property
    def program(self) -> Decoder:
        """What is compiled. Rows of equal programs share one.

        The exact rule is the rule ``match`` at a threshold of 1 under shared noise, and the
        threshold is not compiled in.
        """
        if isinstance(self.decoder, Speculative) and self.decoder.accept == Exact():
            return dataclasses.replace(self.decoder, accept=Match())
        return self.decoder

    def fixed_target_calls(self, scales: int) -> int | None:
        """Target calls of a decoder that always makes as many; None where they vary."""
        decoder = self.decoder
        if isinstance(decoder, TargetOnly):
            return scales
        if isinstance(decoder, DraftOnly):
            return 0
        if isinstance(decoder, Handoff):
            first = min(decoder.entry, scales)
            return first if decoder.order == "target-draft" else scales - first
        return None


def pictures_at(batch: int, settings: Mapping[str, Any], available: int) -> int:
    """How many pictures a row makes at a batch size. Those of the largest alone are judged.

    Args:
      batch: one of ``settings["batch"]``.
      settings: of the run: "batch", its batch sizes, and "single", the pictures at all but the
        largest.
      available: pictures that labels were made for.
    """
    largest = batch == max(settings["batch"])
    count = available if largest else min(settings["single"], available)
    return count - count % batch


def table_rows(scales: int, groups: Sequence[str] | None = None) -> tuple[Row, ...]:
    """All rows that a pyramid of ``scales`` scales has.

    Args:
      scales: number of scales.
      groups: the groups wanted; the target is always there, others are compared with it.

    Raises:
      SdvarError: there is no such group.
    """
    unknown = sorted(set(groups or ()) - set(GROUPS))
    require(not unknown, f"unknown rows {', '.join(unknown)}; use some of {', '.join(GROUPS)}")
    gammas = [gamma for gamma in _GAMMAS if gamma < scales] or [scales]
    most = gammas[0]
    until = [stop for stop in _UNTIL if stop < scales]
    entries = [entry for entry in _ENTRIES if entry < scales]
    rows = [Row("target", TARGET, TargetOnly()), Row("draft", "draft", DraftOnly())]
    rows += [Row(f"exact, gamma {g}", "exact", Speculative(gamma=g)) for g in gammas]
    rows += [_until(stop) for stop in until]
    rows += [
        Row(f"match {t:g}, gamma {most}", "match", Speculative(gamma=most, accept=Match()), t)
        for t in _THRESHOLDS
    ]
    rows += [Row(f"refine {j}", "refine", Speculative(refine=j)) for j in _REFINEMENTS]
    rows += [_handoff(entry, order) for entry in entries for order in _ORDERS]
    residual = Speculative(gamma=most, accept=Residual())
    rows.append(Row(f"residual, gamma {most}", "residual", residual))
    # These come with no program of their own.
    for stop in until:
        relaxed = Speculative(gamma=stop, accept=Match(), check_until=stop)
        rows += [
            Row(f"match {t:g} up to scale {stop}, then draft", "more", relaxed, t)
            for t in (0.5, 0.7)
        ]
    rows += [
        Row(f"match 0.5, gamma {g}", "more", Speculative(gamma=g, accept=Match()), 0.5)
        for g in gammas[1:]
    ]
    if scales > 3:
        rows.append(dataclasses.replace(_until(3), group="more"))
        rows += [dataclasses.replace(_handoff(3, order), group="more") for order in _ORDERS]
    if scales > 9:
        rows += [dataclasses.replace(_handoff(9, order), group="more") for order in _ORDERS]
    kept = [r for r in rows if groups is None or r.group in groups or r.group == TARGET]
    return tuple(kept)


def _until(stop: int) -> Row:
    decoder = Speculative(gamma=stop, check_until=stop)
    return Row(f"exact up to scale {stop}, then draft", "until", decoder)


def _handoff(entry: int, order: str) -> Row:
    first, second = order.split("-")
    return Row(
        f"handoff: {first} up to scale {entry}, then {second}", "handoff", Handoff(entry, order)
    )
