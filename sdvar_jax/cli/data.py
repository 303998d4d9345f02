"""``sdvar data``: training pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdvar_jax.cli.terminal import in_bytes, in_seconds, say, show_table

if TYPE_CHECKING:
    from sdvar_jax.data import PreparationReport

app = typer.Typer(rich_markup_mode="markdown")


@app.callback()
def _group() -> None:
    """Prepare training pictures."""


@app.command()
def emoji(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Image set to write.")
    ] = Path("emoji.zip"),
    size: Annotated[
        int, typer.Option("--size", metavar="PIXELS", help="Side of the pictures.")
    ] = 64,
    archives: Annotated[
        list[Path] | None,
        typer.Option(
            "--archive",
            metavar="FILE.tgz",
            help="Packed icon set to read; may be given several times.",
            show_default="the four openly licensed ones, fetched with npm",
        ),
    ] = None,
    heldout_fraction: Annotated[
        float,
        typer.Option(
            "--heldout-fraction",
            metavar="SHARE",
            help="Share of the emoji, in all styles, kept out of training.",
        ),
    ] = 0.05,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", metavar="N", help="Threads that draw.", show_default="one a processor"
        ),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress and no table.")
    ] = False,
) -> None:
    """Draw the emoji of open icon sets as labelled training pictures.

    Classes are a style and a category, such as "noto/Food & Drink". The same archives give the same
    file, byte for byte.
    """
    from sdvar_jax.data import prepare_emoji

    report = prepare_emoji(
        archives or None,
        output,
        size,
        heldout_fraction=heldout_fraction,
        workers=workers,
        show_progress=not quiet,
    )
    if not quiet:
        show_table(_rows(report))
    say(f"wrote {output}")


def _rows(report: PreparationReport) -> list[tuple[str, str]]:
    rows = [
        ("pictures", f"{report.num_train} to train, {report.num_heldout} held out"),
        ("size", f"{report.size}x{report.size} pixels"),
        ("glyphs", f"{report.num_glyphs}, of which {report.num_heldout_glyphs} held out"),
        ("classes", str(len(report.train_counts))),
        ("category taken from glyph", str(report.recovered)),
    ]
    rows += [(f"left out, {reason}", str(count)) for reason, count in report.dropped.items()]
    return [
        *rows,
        ("file", in_bytes(report.file_bytes)),
        ("time", in_seconds(report.seconds)),
    ]
