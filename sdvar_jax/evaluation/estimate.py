"""A figure with its uncertainty."""

from __future__ import annotations

import dataclasses
import math

# Two-sided quantile of the standard normal distribution.
_Z95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its uncertainty from the samples' randomness.

    Attributes:
      value: of all samples.
      deviation: standard deviation of the value, were the samples made again.
      low: lower end of the 95 % interval.
      high: upper end.
    """

    value: float
    deviation: float
    low: float
    high: float

    @classmethod
    def normal(cls, value: float, deviation: float, most: float = math.inf) -> Estimate:
        """With the interval of a normal distribution, cut off at 0 and at ``most``."""
        half = _Z95 * deviation
        return cls(value, deviation, max(value - half, 0.0), min(value + half, most))

    @classmethod
    def share(cls, value: float, count: int) -> Estimate:
        """Of a share of ``count`` independent samples."""
        return cls.normal(value, math.sqrt(max(value * (1.0 - value), 0.0) / count), 1.0)

    def percent(self) -> str:
        """In per cent, for people."""
        return f"{100 * self.value:.1f} ± {100 * _Z95 * self.deviation:.1f} %"

    def __str__(self) -> str:
        return f"{self.value:.3g} ± {_Z95 * self.deviation:.2g}"
