"""Timing of device work: warmed up, waited for, repeated."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
      seconds: the median of the repeats, or their mean where each does other work.
      low: the fastest.
      high: the slowest.
      repeats: how many there were.
    """

    seconds: float
    low: float
    high: float
    repeats: int

    def __truediv__(self, parts: int) -> Timing:
        """The time of one of ``parts`` equal parts."""
        return Timing(self.seconds / parts, self.low / parts, self.high / parts, self.repeats)

    def fields(self) -> dict[str, float | int]:
        """As a result's fields."""
        return {
            "seconds": self.seconds,
            "seconds_low": self.low,
            "seconds_high": self.high,
            "repeats": self.repeats,
        }

    @classmethod
    def of(cls, seconds: list[float], average: Callable[[list[float]], float]) -> Timing:
        """Of single measurements."""
        return cls(average(seconds), min(seconds), max(seconds), len(seconds))


def measure(
    call: Callable[[], Any], repeats: int, *, warmup: int = 2, limit: float = 20.0
) -> Timing:
    """Times ``call``, which returns arrays to wait for, and takes the median.

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
        seconds.append(_once(call)[0])
        if time.perf_counter() - began > limit and len(seconds) >= min(3, repeats):
            break
    return Timing.of(seconds, statistics.median)


def measure_each(
    calls: Sequence[Callable[[], Any]],
    keep: Callable[[Any], Result],
) -> tuple[Timing, list[Result]]:
    """Times calls of one program that do different amounts of work, and takes the mean.

    Each is made once before: a branch that the first does not take would be loaded in a later one.

    Args:
      calls: the works. All that they return is waited for.
      keep: what is wanted of what a call returned; it is taken to the host, for results that stay
        on a device move what later calls allocate there.

    Returns:
      The timing, and what was kept of each call.
    """
    for call in calls:
        jax.block_until_ready(call())
    seconds, kept = [], []
    for call in calls:
        took, result = _once(call)
        seconds.append(took)
        kept.append(jax.device_get(keep(result)))
        del result
    return Timing.of(seconds, statistics.fmean), kept


def host_fields(call: Callable[[], Any], repeats: int = 5) -> dict[str, float]:
    """What of a call is the host's: where the device waits for it, kernels alone do not help.

    Args:
      call: the work, warmed up.
      repeats: calls in a row.

    Returns:
      "dispatch_seconds": until a call comes back, its work still under way; "queued_seconds": of
      one call where the next is given before the device is done.
    """
    dispatched = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        dispatched.append(time.perf_counter() - start)
        jax.block_until_ready(result)
    start = time.perf_counter()
    results = [call() for _ in range(repeats)]
    jax.block_until_ready(results)
    queued = (time.perf_counter() - start) / repeats
    return {"dispatch_seconds": statistics.median(dispatched), "queued_seconds": queued}


def _once(call: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = jax.block_until_ready(call())
    return time.perf_counter() - start, result
