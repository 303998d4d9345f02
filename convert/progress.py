"""Progress on standard error for what takes more than a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

_WORTH_SHOWING = 64 * 2**20


@contextlib.contextmanager
def byte_progress(total: int, shown: bool) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """Yields a function that starts a phase over ``total`` bytes and returns its counter.

    Args:
      total: bytes of each phase.
      shown: False to show nothing; little work shows nothing either.
    """
    if not shown or total < _WORTH_SHOWING:
        yield lambda name: lambda size: None
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:

        def phase(name: str) -> Callable[[int], None]:
            task = bar.add_task(name, total=total)
            return lambda size: bar.advance(task, size)

        yield phase
