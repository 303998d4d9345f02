"""Programs lowered one by one and compiled side by side, before anything is timed."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Hashable
from typing import Any

from benchmarks.programs import Lower, Program, compiled


class CompileAhead:
    """Compiles on a pool of threads: lowering is Python's work and serial, compiling is not."""

    def __init__(self, threads: int, tell: Callable[[str, Program], None] | None = None) -> None:
        """Starts the pool.

        Args:
          threads: programs compiled at once.
          tell: called with the name of each program and itself once it is compiled.
        """
        self._tell = tell or (lambda name, program: None)
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)
        self._futures: dict[Hashable, concurrent.futures.Future[Program]] = {}

    def submit(self, key: Hashable, lower: Lower, name: str = "") -> None:
        """Lowers now and leaves compiling to the pool; a key that is known is left alone."""
        if key in self._futures:
            return
        start = time.perf_counter()
        lowered, fixed = lower()
        seconds = time.perf_counter() - start

        def run() -> Program:
            program = compiled(lowered, fixed, seconds)
            self._tell(name, program)
            return program

        self._futures[key] = self._pool.submit(run)

    def background(self, work: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """Runs other preparations on the same threads."""
        return self._pool.submit(work)

    def settle(self, seconds: float | None = None) -> None:
        """Waits this long; then gives up what has not begun and waits for the rest."""
        waiting = list(self._futures.values())
        limit = None if seconds is None else max(seconds, 0.0)
        _, late = concurrent.futures.wait(waiting, timeout=limit)
        for future in late:
            future.cancel()
        concurrent.futures.wait(waiting)

    def get(self, key: Hashable) -> Program | None:
        """The program; None where it was given up. A failure to compile is raised."""
        future = self._futures.get(key)
        return None if future is None or future.cancelled() else future.result()
