"""Timing of device work: warmed up, waited for, medians of repeats."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
      median: of the repeats.
      low: the fastest.
      high: the slowest.
      repeats: how many there were.
    """

    median: float
    low: float
    high: float
    repeats: int

    def __truediv__(self, parts: int) -> Timing:
        """The time of one of ``parts`` equal parts."""
        return Timing(self.median / parts, self.low / parts, self.high / parts, self.repeats)

    def fields(self) -> dict[str, float | int]:
        """As a result's fields."""
        return {
            "seconds": self.median,
            "seconds_low": self.low,
            "seconds_high": self.high,
            "repeats": self.repeats,
        }

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        """Of single measurements."""
        return cls(statistics.median(seconds), min(seconds), max(seconds), len(seconds))


def measure(
    call: Callable[[], Any], repeats: int, *, warmup: int = 2, limit: float = 20.0
) -> Timing:
    """Times ``call``, which returns arrays to wait for.

    Args:
      call: the work.
      repeats: measured calls.
      warmup: calls before them.
      limit: stop repeating after this many seconds (at least 3 measured calls are made).
    """
    for _ in range(warmup):
        jax.block_until_ready(call())
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < repeats:
        start = time.perf_counter()
        jax.block_until_ready(call())
        end = time.perf_counter()
        seconds.append(end - start)
        if end - began > limit and len(seconds) >= min(3, repeats):
            break
    return Timing.of(seconds)
