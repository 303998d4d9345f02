"""Stopping on request without leaving anything half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Makes SIGTERM raise SystemExit(143) in the block, so that its clean-up runs.

    Without it Python dies on SIGTERM at once and what was being written aside stays behind. 143 is
    128 + 15, what a shell reports for a process that SIGTERM ended. Outside the main thread, where
    Python allows no handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        # None stands for a handler that was not installed from Python and cannot be put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
