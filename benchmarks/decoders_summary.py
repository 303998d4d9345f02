"""The short table of decoders, as the README shows it, from the ``table.json`` of one or more runs.

    cd docs/results/emoji
    python -m benchmarks.decoders_summary decoders.json decoders_rest.json

Rows may be spread over runs (``--only``); each is compared with the target of its own run.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from benchmarks.decoder_rows import pictures_at
from benchmarks.results import Results, markdown_table, read_results
from sdvar_jax.config.validation import require
from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.estimate import Estimate

ROWS = (
    "target",
    "draft",
    "exact, gamma 3",
    "exact, gamma 9",
    "exact up to scale 3, then draft",
    "exact up to scale 5, then draft",
    "exact up to scale 7, then draft",
    "residual, gamma 9",
    "match 0.5, gamma 3",
    "match 0.5, gamma 9",
    "match 0.7, gamma 9",
    "match 0.9, gamma 9",
    "match 0.5 up to scale 5, then draft",
    "refine 1",
    "handoff: target up to scale 3, then draft",
    "handoff: draft up to scale 3, then target",
    "handoff: target up to scale 7, then draft",
    "handoff: draft up to scale 7, then target",
    "handoff: target up to scale 9, then draft",
    "handoff: draft up to scale 9, then target",
)


def _percent(value: float) -> str:
    return f"{value:+.0%}".replace("%", " %").replace("-", "−")  # noqa: RUF001


def _pictures(run: Results, samples: int, batches: tuple[int, ...]) -> str:
    """Of how many pictures the figures of a run's rows are."""
    fewer = ", ".join(
        f"{pictures_at(batch, run.context['settings'], samples):,} in the figures of batch {batch}"
        for batch in batches
        if batch != max(batches)
    )
    return f"{samples:,} pictures a row" + (f" ({fewer})." if fewer else ".")


def summary(runs: Sequence[Results], batches: tuple[int, ...] = (1, 32)) -> str:
    """The Markdown table of the rows in ``ROWS`` that were measured in any of the runs.

    Of a row that several runs have, the first one's is shown. Above the table stands of how many
    pictures the rows are, which is the same in all runs.
    """
    measured: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    pictures = set()
    for run in runs:
        rows_of_run = {record["row"]: record for record in run.of_kind("row")}
        require(
            "target" in rows_of_run,
            "the results have no row `target`; run benchmarks.decoders_table",
        )
        pictures.add(_pictures(run, rows_of_run["target"]["samples"], batches))
        for name, record in rows_of_run.items():
            measured.setdefault(name, (record, rows_of_run["target"]))
    require(
        len(pictures) == 1,
        "the runs made unlike numbers of pictures; give those of the same --samples and --single",
    )
    together = " / ".join(map(str, batches))
    columns = {
        "decoder": "decoder",
        "calls": f"target calls, batch {together}",
        "accepted": f"accepted, batch {together}",
        "real": "Frechet to real",
        "target": "Frechet to target-only",
        **{f"time{batch}": f"time (speed-up), batch {batch}" for batch in batches},
        "memory": f"memory, batch {together}",
    }
    rows = []
    for name in ROWS:
        if name not in measured:
            continue
        record, target = measured[name]
        accepted = [record.get(f"b{batch}_acceptance") for batch in batches]
        rows.append(
            {
                "decoder": name,
                "calls": " / ".join(f"{record[f'b{b}_target_calls']:.2f}" for b in batches),
                "accepted": " / ".join(f"{100 * a:.1f} %" for a in accepted if a is not None),
                "real": str(Estimate(**record["frechet_real"])),
                "target": str(Estimate(**record["frechet_target"])),
                **{
                    f"time{b}": f"{1e3 * record[f'b{b}_seconds']:.1f} ms "
                    f"({record[f'b{b}_speedup']:.2f})"
                    for b in batches
                },
                "memory": " / ".join(
                    _percent(record[f"b{b}_memory_bytes"] / target[f"b{b}_memory_bytes"] - 1)
                    for b in batches
                ),
            }
        )
    return "\n\n".join((*pictures, markdown_table(rows, columns)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoders_summary", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "results", type=Path, nargs="+", help="table.json of benchmarks.decoders_table"
    )
    options = parser.parse_args(arguments)
    print(summary([_results(file) for file in options.results]))


def _results(file: Path) -> Results:
    try:
        return read_results(file)
    except (OSError, ValueError, KeyError) as error:
        raise SdvarError(f"{file} is no table.json of benchmarks.decoders_table") from error


if __name__ == "__main__":
    run_command(main)
