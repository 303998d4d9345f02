"""A run's results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.break_even import break_even
from benchmarks.results import Record, Results, markdown_table
from sdvar_jax.models.var.quantized import INT8
from sdvar_jax.runtime.atomic import atomic_file

_DECODERS = {
    "target": "target",
    "draft": "draft",
    "batch": "batch",
    "case": "decoder",
    "planned_acceptance": "planned acceptance",
    "acceptance": "acceptance",
    "target_calls": "target calls",
    "seconds": "time",
    "queued_seconds": "time in a row",
    "dispatch_seconds": "host",
    "images_per_second": "images/s",
    "speedup": "speed-up",
    "lower_seconds": "trace",
    "compile_seconds": "compile",
    "program_bytes": "program's memory",
    "memory_ratio": "memory over target-only",
}
_PHASES = {"target": "model", "batch": "batch", "phase": "phase", "seconds": "time"}
_FORWARDS = {
    "role": "role",
    "model": "model",
    "batch": "batch",
    "scales": "scales",
    "tokens": "tokens",
    "seconds": "time",
    "floor_seconds": "floor",
    "over_floor": "over the floor",
}
_FLOORS = {
    "target": "model",
    "batch": "batch",
    "modulations_seconds": "modulations",
    "transformer_seconds": "transformer",
    "measured_transformer_seconds": "transformer, measured",
    "transformer_over_floor": "over the floor",
    "images_seconds": "images",
    "measured_images_seconds": "images, measured",
    "images_over_floor": "over the floor ",
}
_PEERS = {
    "target": "model",
    "batch": "batch",
    "variant": "PyTorch",
    "attention": "its attention",
    "seconds": "its time",
    "peak_bytes": "its peak memory",
    "our_seconds": "our time",
    "ratio": "ratio",
}
_COSTS = {
    "target": "target",
    "draft": "draft",
    "batch": "batch",
    "draft_fixed": "draft, fixed s",
    "draft_per_token": "draft, s a token",
    "target_fixed": "target, fixed s",
    "target_per_token": "target, s a token",
}
_CEILINGS = {
    "bytes_per_second": "bytes/s",
    "flops_per_second": "operations/s",
    "float32_flops_per_second": "operations/s in float32",
}
_STARTUP = {
    "target": "model",
    "batch": "batch",
    "compilation": "compilation",
    "start_seconds": "imports",
    "weights_seconds": "random weights",
    "trace_and_compile_seconds": "trace and compile",
    "sample_seconds": "sampling",
    "first_image_seconds": "first image after",
}
_BREAK_EVEN = {
    "target": "target",
    "draft": "draft",
    "batch": "batch",
    "case": "decoder",
    "break_even": "pays from acceptance",
}


def phase_seconds(results: Results, target: str, batch: int, phase: str) -> float | None:
    """The time of a phase, or None where it was not measured."""
    for record in results.of_kind("phase"):
        if (record["target"], record["batch"], record["phase"]) == (target, batch, phase):
            return float(record["seconds"])
    return None


def break_evens(results: Results) -> list[Record]:
    """Where each decoder with a curve begins to pay, against target-only of the same run."""
    decoders = results.of_kind("decoder")
    alone = {(r["target"], r["batch"]): r["seconds"] for r in decoders if r["case"] == "target"}
    curves: dict[tuple, list[tuple[float, float]]] = {}
    for record in decoders:
        if record["planned_acceptance"] is not None:
            key = (record["target"], record["draft"], record["batch"], record["case"])
            curves.setdefault(key, []).append((record["planned_acceptance"], record["seconds"]))
    rows = []
    for (target, draft, batch, case), points in curves.items():
        if len(points) < 2 or (target, batch) not in alone:
            continue
        pays = break_even(points, alone[target, batch])
        rows.append(
            {
                "target": target,
                "draft": draft,
                "batch": batch,
                "case": case,
                "break_even": "never" if pays is None else f"{pays:.0%}",
            }
        )
    return rows


def _with_memory_ratio(records: list[Record]) -> list[Record]:
    alone = {
        (r["target"], r["batch"]): r["program_bytes"] for r in records if r["case"] == "target"
    }
    rows = []
    for record in records:
        base, own = alone.get((record["target"], record["batch"])), record["program_bytes"]
        rows.append({**record, "memory_ratio": own / base if base and own else None})
    return rows


def _with_floor(results: Results) -> list[Record]:
    floors = {(r["target"], r["batch"]): r["scales"] for r in results.of_kind("floor")}
    rows = []
    for record in results.of_kind("forward"):
        floor = floors.get((record["model"], record["batch"]))
        least = None if floor is None else sum(floor[record["start"] : record["stop"]])
        rows.append(
            {
                **record,
                "scales": _scales(record),
                "floor_seconds": least,
                "over_floor": None if least is None else record["seconds"] / least,
            }
        )
    return rows


def _scales(record: Record) -> str:
    """The window in scales counted from 1."""
    first, last = record["start"] + 1, record["stop"]
    return str(first) if first == last else f"{first}-{last}"


def _floors(results: Results) -> list[Record]:
    rows = []
    for record in results.of_kind("floor"):
        target, batch = record["target"], record["batch"]
        modulations = phase_seconds(results, target, batch, "modulations")
        forwards = phase_seconds(results, target, batch, "forwards of all scales")
        images = phase_seconds(results, target, batch, "images")
        transformer = None if modulations is None or forwards is None else modulations + forwards
        rows.append(
            {
                **record,
                "measured_transformer_seconds": transformer,
                "transformer_over_floor": _over(transformer, record["transformer_seconds"]),
                "measured_images_seconds": images,
                "images_over_floor": _over(images, record["images_seconds"]),
            }
        )
    return rows


def _over(measured: float | None, least: float) -> float | None:
    return None if measured is None else measured / least


def report(results: Results) -> str:
    """All tables of a run, the empty ones left out."""
    windows = [{**r, "scales": _scales(r)} for r in results.of_kind("window")]
    sections: Iterable[tuple[str, list[Record], dict[str, str]]] = (
        ("Decoders", _with_memory_ratio(results.of_kind("decoder")), _DECODERS),
        ("Acceptance from which it pays", break_evens(results), _BREAK_EVEN),
        ("PyTorch original", results.of_kind("peer"), _PEERS),
        ("Phases of target-only decoding", results.of_kind("phase"), _PHASES),
        ("Forwards", _with_floor(results), _FORWARDS),
        ("Ceilings", results.of_kind("ceilings"), _CEILINGS),
        ("Floor", _floors(results), _FLOORS),
        ("Forwards with drawing", windows, _FORWARDS),
        ("Cost model", results.of_kind("cost"), _COSTS),
        ("Start-up", results.of_kind("startup"), _STARTUP),
        ("Not measured", results.of_kind("skipped"), {"what": "what", "reason": "why"}),
    )
    context = results.context
    parts = []
    if "device" in context:
        in_eight_bits = context.get("settings", {}).get("weights") == INT8
        weights = ", int8 weights in the blocks" if in_eight_bits else ""
        parts = [f"{context['device']}, jax {context['jax']}{weights}"]
    parts += [f"### {title}\n\n{markdown_table(r, c)}" for title, r, c in sections if r]
    return "\n\n".join(parts) + "\n"


def write_report(results: Results, path: Path) -> None:
    """Writes the tables to a file."""
    with atomic_file(path) as aside:
        aside.write_text(report(results), encoding="utf-8")
