"""Showing how far a run is."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

# Seconds between lines where there is no terminal to draw a bar on.
_LINE_EVERY = 10.0


class RunProgress:
    """A bar with the time left on a terminal; a line now and then elsewhere."""

    def __init__(self, name: str, *, enabled: bool = True) -> None:
        self._name = name
        self._enabled = enabled
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> RunProgress:
        if self._enabled and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[numbers]}"),
                console=self._console,
            )
            self._task = self._bar.add_task(self._name, total=None, numbers="compiling")
            self._bar.start()
        else:
            self.note("compiling")
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """Shows the steps made, the steps of the run, and numbers worth seeing."""
        if not self._enabled:
            return
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=total, numbers=numbers)
        elif step >= total or time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self.note(f"step {step}/{total}  {numbers}")

    def note(self, text: str) -> None:
        """Prints a line with the seconds since the start."""
        if self._enabled:
            passed = time.monotonic() - self._started
            self._console.print(
                f"{self._name} [{passed:7.1f} s] {text}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
