"""What a run reports about itself: the statistics file and the table on the terminal."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from sdvar_jax import __version__
from sdvar_jax.cli.terminal import in_bytes, in_seconds
from sdvar_jax.models.var.quantized import INT8
from sdvar_jax.runtime.memory import describe_devices, peak_host_memory, peak_memory

if TYPE_CHECKING:
    from sdvar_jax.cli.job import Job, Loaded
    from sdvar_jax.loading import ModelFiles
    from sdvar_jax.result import SampleResult

_PACKAGES = ("jax", "jaxlib", "flax", "numpy")
# In the order in which they happen.
_PHASES = {
    "load": "reading the models",
    "compile": "compiling",
    "tokens": "making tokens",
    "images": "decoding pictures",
}


@dataclasses.dataclass(frozen=True)
class Report:
    """One run, finished.

    Attributes:
      command: of ``sdvar``.
      job: what was asked for.
      result: what was sampled.
      seconds: of the whole run, reading the models included.
      loaded: the models, and how long they took.
    """

    command: str
    job: Job
    result: SampleResult
    seconds: float
    loaded: Loaded

    @property
    def samples(self) -> int:
        """Number of pictures."""
        return len(self.result.labels)

    @property
    def batch_size(self) -> int:
        """Pictures a program call."""
        return min(self.job.batch_size, self.samples)

    @property
    def times(self) -> dict[str, float]:
        """Seconds a phase; "total" holds writing and overhead too.

        What is compiled while the models are read counts in "load" and "compile".
        """
        times = {"load": self.loaded.seconds, **self.result.timings, "total": self.seconds}
        return {**times, "compile": times["compile"] + self.loaded.compile_seconds}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        statistics = self.result.statistics
        return {
            "command": self.command,
            "versions": versions(),
            "device": device(),
            "models": {
                part: _described(self.job.files, part) for part in ("target", "vqvae", "draft")
            },
            "settings": self.job.settings(),
            "samples": self.samples,
            "batch_size": self.batch_size,
            "labels": [int(label) for label in self.result.labels],
            "seconds": self.times,
            "peak_memory_bytes": {"devices": list(peak_memory()), "host": peak_host_memory()},
            "statistics": None if statistics is None else statistics.to_dict(),
        }

    def table_rows(self) -> list[tuple[str, str]]:
        """The short table of the terminal."""
        settings = self.job.settings()
        in_eight_bits = ", int8 weights" if settings["weights"] == INT8 else ""
        made = "picture" if self.samples == 1 else "pictures"
        rows = [
            ("pictures", f"{self.samples} {made} in batches of {self.batch_size}"),
            ("device", f"{describe_devices()}, {settings['dtype']}{in_eight_bits}"),
        ]
        times = self.times
        for phase, meaning in _PHASES.items():
            if phase in times:
                rows.append((meaning, in_seconds(times[phase]) + self._of(phase, times[phase])))
        known = [peak for peak in peak_memory() if peak is not None]
        if known:
            rows.append(("peak device memory", in_bytes(max(known))))
        rows.append(("peak host memory", in_bytes(peak_host_memory())))
        statistics = self.result.statistics
        return rows if statistics is None else [*rows, *statistics.table_rows()]

    def _of(self, phase: str, seconds: float) -> str:
        """What is to be said of a phase's seconds."""
        if phase == "compile" and self.loaded.compile_seconds > 0:
            return ", meanwhile" if self.result.timings["compile"] == 0 else ", in part meanwhile"
        sampling = phase in ("tokens", "images") and self.samples > 1
        return f" ({in_seconds(seconds / self.samples)} a picture)" if sampling else ""


def versions() -> dict[str, str]:
    """Versions of what made the pictures."""
    found = {"sdvar_jax": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = importlib.metadata.version(package)
    return found


def device() -> dict[str, Any]:
    """What the program runs on."""
    devices = jax.local_devices()
    return {
        "description": describe_devices(),
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }


def _described(files: ModelFiles, name: str) -> dict[str, Any] | None:
    part = getattr(files, name)
    if part is None:
        return None
    return {
        "checkpoint": str(Path(part.directory)),
        "part": part.name,
        "parameters": part.info.parameters,
        "stored_dtype": part.info.dtype,
        "config": part.config.to_dict(),
    }
