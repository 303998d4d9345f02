"""What the terminal shows: progress on standard error, results on standard output."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

Advance = Callable[[int], None]

# Smaller checkpoints are read in less than a second or two.
_WORTH_SHOWING = 64 * 2**20


def say(line: str) -> None:
    """Prints one line of the result."""
    Console(soft_wrap=True, highlight=False, markup=False).print(line)


def note(line: str) -> None:
    """Prints one line beside the result, on standard error."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(line)


def show_table(rows: Sequence[tuple[str, str]]) -> None:
    """Prints pairs of names and values."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, value)
    Console(highlight=False, markup=False).print(table)


@contextlib.contextmanager
def picture_progress(description: str, total: int, *, shown: bool) -> Iterator[Advance]:
    """Shows how many of ``total`` pictures are finished and how long it has taken.

    Yields:
      A function to call with the number finished so far.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with _progress(columns, shown=shown) as bar:
        task = bar.add_task(description, total=total)
        yield lambda finished: bar.update(task, completed=finished)


@contextlib.contextmanager
def byte_progress(description: str, total: int, *, shown: bool) -> Iterator[Advance]:
    """Shows how many of ``total`` bytes are done; few bytes show nothing.

    Yields:
      A function to call with the number of bytes since the last call.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeElapsedColumn(),
    )
    with _progress(columns, shown=shown and total >= _WORTH_SHOWING) as bar:
        task = bar.add_task(description, total=total)
        yield lambda size: bar.advance(task, size)


def _progress(columns: Sequence[ProgressColumn], *, shown: bool) -> Progress:
    console = Console(stderr=True)
    shown = shown and console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=not shown)


def in_bytes(size: int | None) -> str:
    """A size in words, such as "1.3 GiB"."""
    if size is None:
        return "unknown"
    value, units = float(size), ("B", "KiB", "MiB", "GiB", "TiB")
    for unit in units:
        if value < 1024 or unit == units[-1]:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError


def in_seconds(seconds: float) -> str:
    """A time in words, such as "12.3 s" or "45 ms"."""
    return f"{seconds:.1f} s" if seconds >= 10 else f"{1000 * seconds:,.0f} ms"
