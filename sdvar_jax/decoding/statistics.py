"""Statistics of a run on the host, named as vLLM and SGLang name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding.speculative.state import MAKER_NAMES, Counters


def acceptance_seen(runs: Iterable[Counters | None]) -> tuple[int, int]:
    """Drafted scales accepted and judged (accepted, or the first to be rejected) in all runs."""
    counters = [run for run in runs if run is not None]
    accepted = sum(int(np.sum(run.accepted)) for run in counters)
    return accepted, accepted + sum(int(np.sum(run.rejected)) for run in counters)


@dataclasses.dataclass(frozen=True)
class DecodingStatistics:
    """Counts of a run; those a sample has are summed over all samples.

    A draft here is a whole scale. The acceptance rate is a share of all drafts that were checked,
    those behind a rejection included, as vLLM counts it; ``judged_acceptance_rate`` leaves them
    out.

    Attributes:
      samples: pictures made.
      batches: program calls.
      target_calls: forwards of the target, of all batches.
      draft_calls: forwards of the draft.
      target_tokens_computed: positions the target computed, guidance doubling not counted, summed
        over samples.
      draft_tokens_computed: likewise for the draft.
      num_drafts: checks with at least one drafted scale, of all batches.
      num_draft_scales: drafted scales checked.
      num_accepted_scales: those accepted.
      num_draft_tokens: tokens of the drafted scales.
      num_accepted_tokens: tokens of the accepted ones.
      draft_scales_per_scale: drafts checked, by scale [num_scales].
      accepted_scales_per_scale: drafts accepted, by scale [num_scales].
      rejected_scales_per_scale: rejections, by scale [num_scales].
      agreed_tokens_per_scale: drafted tokens equal to the target's, by scale [num_scales].
      windows: start and stop (exclusive) of each target call, one list a batch.
      makers: who made each sample's scale, an index into ``maker_names`` [samples, num_scales].
      batch_sizes: samples of each batch.
      scale_lengths: tokens of each scale.
      maker_names: what the numbers in ``makers`` stand for.
    """

    samples: int
    batches: int
    target_calls: int
    draft_calls: int
    target_tokens_computed: int
    draft_tokens_computed: int
    num_drafts: int
    draft_scales_per_scale: np.ndarray
    accepted_scales_per_scale: np.ndarray
    rejected_scales_per_scale: np.ndarray
    agreed_tokens_per_scale: np.ndarray
    windows: tuple[tuple[tuple[int, int], ...], ...]
    makers: np.ndarray
    batch_sizes: tuple[int, ...]
    scale_lengths: tuple[int, ...]
    maker_names: tuple[str, ...] = MAKER_NAMES

    @classmethod
    def of(
        cls, counters: Sequence[Counters], sizes: Sequence[int], pyramid: ScalePyramid
    ) -> DecodingStatistics:
        """Joins the counters of all batches.

        Args:
          counters: one a batch, on the host.
          sizes: samples wanted of each batch; rows that only fill a batch up are not counted as
            samples, but their forwards were made.
          pyramid: the scales.
        """

        def total(name: str) -> Any:
            return np.sum([np.asarray(getattr(c, name)) for c in counters], axis=0)

        return cls(
            samples=sum(sizes),
            batches=len(counters),
            target_calls=int(total("target_calls")),
            draft_calls=int(total("draft_calls")),
            target_tokens_computed=sum(int(c.target_tokens) * c.makers.shape[0] for c in counters),
            draft_tokens_computed=sum(int(c.draft_tokens) * c.makers.shape[0] for c in counters),
            num_drafts=int(total("drafts")),
            draft_scales_per_scale=total("drafted"),
            accepted_scales_per_scale=total("accepted"),
            rejected_scales_per_scale=total("rejected"),
            agreed_tokens_per_scale=total("agreed_tokens"),
            windows=tuple(
                tuple(
                    (int(start), int(stop))
                    for start, stop in zip(c.window_starts, c.window_stops, strict=True)
                    if start >= 0
                )
                for c in counters
            ),
            makers=np.concatenate(
                [np.asarray(c.makers)[:size] for c, size in zip(counters, sizes, strict=True)]
            ),
            batch_sizes=tuple(sizes),
            scale_lengths=tuple(pyramid.lengths),
        )

    @property
    def num_draft_scales(self) -> int:
        """Drafted scales that were checked."""
        return int(self.draft_scales_per_scale.sum())

    @property
    def num_accepted_scales(self) -> int:
        """Drafted scales that were accepted."""
        return int(self.accepted_scales_per_scale.sum())

    @property
    def acceptance_seen(self) -> tuple[int, int]:
        """Drafted scales accepted, and those judged: accepted or the first to be rejected."""
        accepted = self.num_accepted_scales
        return accepted, accepted + int(self.rejected_scales_per_scale.sum())

    @property
    def num_draft_tokens(self) -> int:
        """Tokens of the drafted scales."""
        return int(self.draft_scales_per_scale @ np.asarray(self.scale_lengths))

    @property
    def num_accepted_tokens(self) -> int:
        """Tokens of the accepted scales."""
        return int(self.accepted_scales_per_scale @ np.asarray(self.scale_lengths))

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted share of all drafted scales; None without drafts."""
        return _share(self.num_accepted_scales, self.num_draft_scales)

    @property
    def judged_acceptance_rate(self) -> float | None:
        """Accepted share of the drafted scales that were reached; None without drafts."""
        return _share(*self.acceptance_seen)

    @property
    def token_agreement_rate(self) -> float | None:
        """Share of drafted tokens equal to the target's; None without drafts."""
        return _share(int(self.agreed_tokens_per_scale.sum()), self.num_draft_tokens)

    @property
    def mean_acceptance_length(self) -> float | None:
        """Scales a target call commits for a sample on average, its own (the bonus) included."""
        committed = int(np.sum(np.isin(self.makers, (1, 2, 3, 5))))
        calls = sum(
            len(windows) * size
            for windows, size in zip(self.windows, self.batch_sizes, strict=True)
        )
        return _share(committed, calls)

    @property
    def target_calls_per_batch(self) -> float:
        """Forwards of the target for one batch, on average."""
        return self.target_calls / self.batches

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "samples": self.samples,
            "batches": self.batches,
            "target_calls": self.target_calls,
            "draft_calls": self.draft_calls,
            "target_calls_per_batch": self.target_calls_per_batch,
            "target_tokens_computed": self.target_tokens_computed,
            "draft_tokens_computed": self.draft_tokens_computed,
            "num_drafts": self.num_drafts,
            "num_draft_scales": self.num_draft_scales,
            "num_accepted_scales": self.num_accepted_scales,
            "num_draft_tokens": self.num_draft_tokens,
            "num_accepted_tokens": self.num_accepted_tokens,
            "acceptance_rate": self.acceptance_rate,
            "judged_acceptance_rate": self.judged_acceptance_rate,
            "token_agreement_rate": self.token_agreement_rate,
            "mean_acceptance_length": self.mean_acceptance_length,
            "draft_scales_per_scale": self.draft_scales_per_scale.tolist(),
            "accepted_scales_per_scale": self.accepted_scales_per_scale.tolist(),
            "rejected_scales_per_scale": self.rejected_scales_per_scale.tolist(),
            "agreed_tokens_per_scale": self.agreed_tokens_per_scale.tolist(),
            "windows": [[list(window) for window in batch] for batch in self.windows],
            "makers": self.makers.tolist(),
            "maker_names": list(self.maker_names),
        }

    def table_rows(self) -> list[tuple[str, str]]:
        """What the terminal shows, as (name, value)."""
        rows = [
            ("target calls a batch", f"{self.target_calls_per_batch:.2f}"),
            ("draft calls a batch", f"{self.draft_calls / self.batches:.2f}"),
            ("drafted scales", str(self.num_draft_scales)),
            ("accepted scales", str(self.num_accepted_scales)),
        ]
        for name, value in (
            ("acceptance rate", self.acceptance_rate),
            ("acceptance rate where reached", self.judged_acceptance_rate),
            ("token agreement", self.token_agreement_rate),
        ):
            if value is not None:
                rows.append((name, f"{100 * value:.1f} %"))
        if self.mean_acceptance_length is not None:
            rows.append(("scales a target call", f"{self.mean_acceptance_length:.2f}"))
        rows.append(("windows of the first batch", _windows_text(self.windows[0])))
        rows.append(("tokens by the target", str(self.target_tokens_computed)))
        rows.append(("tokens by the draft", str(self.draft_tokens_computed)))
        return rows


def _share(part: int, whole: int) -> float | None:
    return None if whole == 0 else part / whole


def _windows_text(windows: Sequence[tuple[int, int]]) -> str:
    """Windows as people count scales, from 1: "1-4 5-8 9"."""
    return " ".join(
        f"{start + 1}" if stop == start + 1 else f"{start + 1}-{stop}" for start, stop in windows
    )
