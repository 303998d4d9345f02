"""Ending a run between two steps when the system asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """Notes SIGTERM instead of dying of it, so that the run can save itself first.

    Used as a context manager; outside the main thread, where Python allows no handlers, it never
    asks to stop.

    Attributes:
      number: the signal that came, or None.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._previous: object = None
        self._installed = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.number = number

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._note)
            self._installed = True
        return self

    def __exit__(self, *exception: object) -> None:
        if self._installed:
            # None stands for a handler that was not installed from Python.
            previous = signal.SIG_DFL if self._previous is None else self._previous
            signal.signal(signal.SIGTERM, previous)  # type: ignore[arg-type]
