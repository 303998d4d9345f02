"""From which acceptance on speculative decoding pays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


def break_even(points: Sequence[tuple[float, float]], target_seconds: float) -> float | None:
    """The least acceptance from which on a decoder is no slower than the target alone.

    Args:
      points: acceptance and seconds, in any order.
      target_seconds: of the target alone.

    Returns:
      The acceptance, interpolated between the points; 0 where even none accepted pays, None where
      not even the most accepted does.
    """
    if not points:
        return None
    ordered = sorted(points)
    if ordered[-1][1] > target_seconds:
        return None
    # From the most accepted down to the first point that is slower.
    for (low, slow), (high, fast) in reversed(list(itertools.pairwise(ordered))):
        if slow > target_seconds:
            return low + (high - low) * (slow - target_seconds) / (slow - fast)
    return ordered[0][0]
