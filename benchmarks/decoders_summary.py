"""The short table of decoders, as the README shows it, from the ``table.json`` of one or more runs.

    cd docs/results/emoji
    python -m benchmarks.decoders_summary decoders.json decoders_rest.json

Rows may be spread over runs (``--only``); each is compared with the target of its own run.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import run_command
from benchmarks.results import markdown_table
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


Records = Sequence[Mapping[str, Any]]


def summary(runs: Sequence[Records], batches: tuple[int, ...] = (1, 32)) -> str:
    """The Markdown table of the rows in ``ROWS`` that were measured in any of the runs.

    Of a row that several runs have, the first one's is shown.
    """
    measured: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}
    for records in runs:
        rows_of_run = {record["row"]: record for record in records if record["kind"] == "row"}
        require(
            "target" in rows_of_run,
            "the results have no row `target`; run benchmarks.decoders_table",
        )
        for name, record in rows_of_run.items():
            measured.setdefault(name, (record, rows_of_run["target"]))
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
    return markdown_table(rows, columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoders_summary", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "results", type=Path, nargs="+", help="table.json of benchmarks.decoders_table"
    )
    options = parser.parse_args(arguments)
    print(summary([_records(file) for file in options.results]))


def _records(file: Path) -> Records:
    try:
        records: Records = json.loads(file.read_text(encoding="utf-8"))["records"]
    except (OSError, ValueError, KeyError) as error:
        raise SdvarError(f"{file} is no table.json of benchmarks.decoders_table") from error
    return records


if __name__ == "__main__":
    run_command(main)
