"""Results as they come: a line on the screen and a JSON file that is complete at any time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdvar_jax.runtime.atomic import atomic_file

Record = dict[str, Any]


def shown(key: str, value: Any) -> str:
    """A value in the unit that is easiest to read, by the end of its name and its size."""
    if value is None:
        return "-"
    if isinstance(value, float):
        if key.endswith("seconds"):
            return f"{value:.2f} s" if value >= 1.0 else f"{value * 1e3:.3f} ms"
        return f"{value:.4g}"
    if key.endswith("bytes"):
        return f"{value / 2**30:.2f} GiB"
    return str(value)


def told(record: Record) -> str:
    """A record as one line."""
    hidden = ("kind", "seconds_low", "seconds_high", "repeats")
    fields = " ".join(
        f"{key}={shown(key, value)}"
        for key, value in record.items()
        if key not in hidden and not isinstance(value, list)
    )
    return f"{record['kind']}: {fields}"


class Results:
    """The records of one run.

    Attributes:
      context: what holds for all of them (device, versions, settings).
      records: the results, each with a ``kind``.
    """

    def __init__(
        self, context: Mapping[str, Any], path: Path | None = None, *, quiet: bool = False
    ) -> None:
        self._quiet = quiet
        self.context = dict(context)
        self.records: list[Record] = []
        self._path = path
        self._save()

    def add(self, kind: str, **fields: Any) -> Record:
        """Takes a result, prints it and rewrites the file."""
        record = {"kind": kind, **fields}
        self.records.append(record)
        if not self._quiet:
            print(told(record), flush=True)
        self._save()
        return record

    def of_kind(self, kind: str) -> list[Record]:
        """The records of one kind."""
        return [record for record in self.records if record["kind"] == kind]

    def _save(self) -> None:
        if self._path is None:
            return
        text = json.dumps({"context": self.context, "records": self.records}, indent=1)
        with atomic_file(self._path) as aside:
            aside.write_text(text + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Reads what ``Results`` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    results = Results(data["context"])
    results.records = list(data["records"])
    return results


def markdown_table(records: list[Record], columns: Mapping[str, str]) -> str:
    """A Markdown table of records.

    Args:
      records: the rows.
      columns: field -> heading; columns that no record has are left out.
    """
    kept = {k: h for k, h in columns.items() if any(r.get(k) is not None for r in records)}
    rows = [list(kept.values()), ["---"] * len(kept)]
    rows += [[_cell(k, r.get(k)) for k in kept] for r in records]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(key: str, value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "-"
    return shown(key, value)
