"""A bound on the whole run's time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Budget:
    """Seconds left, and what measurements of each kind took so far.

    A measurement is started only if the longest one of its kind still fits.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._began = time.monotonic()
        self._longest: dict[str, float] = {}

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def allows(self, kind: str) -> bool:
        """Whether another measurement of this kind should begin."""
        if self._seconds is None:
            return True
        return self.elapsed + self._longest.get(kind, 0.0) < self._seconds

    @contextlib.contextmanager
    def spend(self, kind: str) -> Iterator[None]:
        """Notes what the block takes."""
        start = time.monotonic()
        try:
            yield
        finally:
            took = time.monotonic() - start
            self._longest[kind] = max(took, self._longest.get(kind, 0.0))
