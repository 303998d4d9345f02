"""Plots of a run: time over acceptance, and forwards over tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.results import Record, Results
from sdvar_jax.errors import SdvarError


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise SdvarError(
            "plots need matplotlib: pip install matplotlib, or leave out --plots"
        ) from error
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def check_plots(directory: Path) -> None:
    """``SdvarError`` where plots could not be made, before anything is measured."""
    _pyplot()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SdvarError(f"cannot make the directory {directory} for plots: {error}") from error


def _groups(records: list[Record], *keys: str) -> dict[tuple, list[Record]]:
    groups: dict[tuple, list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def write_plots(results: Results, directory: Path) -> list[Path]:
    """Writes PNG files and returns their paths."""
    pyplot = _pyplot()
    paths = []
    decoders = results.of_kind("decoder")
    for (target, batch), records in _groups(decoders, "target", "batch").items():
        curves = [r for r in records if r["planned_acceptance"] is not None]
        if len({r["planned_acceptance"] for r in curves}) < 2:
            continue
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for (case,), points in _groups(curves, "case").items():
            points.sort(key=lambda r: r["planned_acceptance"])
            x = [100 * r["planned_acceptance"] for r in points]
            axes.plot(x, [1e3 * r["seconds"] for r in points], marker="o", label=case)
        for record in records:
            if record["planned_acceptance"] is None:
                axes.axhline(1e3 * record["seconds"], linestyle="--", linewidth=0.8)
                axes.annotate(record["case"], (0, 1e3 * record["seconds"]), fontsize=7)
        axes.set(xlabel="drafted scales accepted (%)", ylabel="ms", ylim=(0, None))
        axes.set_title(f"{target}, batch {batch}")
        axes.legend(fontsize=8)
        paths.append(_save(pyplot, figure, directory / f"acceptance-{target}-{batch}.png"))
    forwards = results.of_kind("forward") + results.of_kind("window")
    if forwards:
        figure, axes = pyplot.subplots(figsize=(6, 4))
        for (kind, model, batch), points in _groups(forwards, "kind", "model", "batch").items():
            points.sort(key=lambda r: r["tokens"])
            x, y = [r["tokens"] for r in points], [1e3 * r["seconds"] for r in points]
            axes.plot(x, y, marker=".", label=f"{model}, batch {batch} ({kind})")
        axes.set(xscale="log", yscale="log", xlabel="tokens a sample", ylabel="ms")
        axes.legend(fontsize=7)
        paths.append(_save(pyplot, figure, directory / "forwards.png"))
    return paths


def _save(pyplot: Any, figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path
