"""The typed result of sampling."""

from __future__ import annotations

import dataclasses

import numpy as np

from sdvar_jax.decoding.speculative.state import Trace
from sdvar_jax.decoding.statistics import DecodingStatistics


@dataclasses.dataclass(frozen=True)
class SampleResult:
    """Pictures and how they came about; everything on the host.

    Attributes:
      images: float32 [samples, side, side, 3] in [0, 1].
      tokens: token map of every scale, int32 [samples, side**2] each.
      labels: int32 [samples].
      statistics: counts of decoders that have any, summed over all batches, else None.
      timings: seconds a phase: "compile", and where asked for "tokens" and "images".
      traces: one trace a batch in debugging mode, else empty.
    """

    images: np.ndarray
    tokens: tuple[np.ndarray, ...]
    labels: np.ndarray
    statistics: DecodingStatistics | None = None
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    traces: tuple[Trace, ...] = ()
