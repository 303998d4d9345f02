"""Where a run's numbers go: a JSON line each, and TensorBoard where it can be had."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdvar_jax.runtime.directories import ensure_directory

METRICS_FILE = "metrics.jsonl"


class MetricsWriter:
    """Appends metrics to ``metrics.jsonl`` and to TensorBoard event files of a directory.

    Without tensorboardX (extra ``train``) only the JSON lines are written. With no directory
    nothing is.
    """

    def __init__(self, directory: Path | None) -> None:
        """Opens the files; ``SdvarError`` where the directory cannot be written."""
        self._file: Any = None
        self._board: Any = None
        if directory is None:
            return
        ensure_directory(directory)
        self._file = (directory / METRICS_FILE).open("a", encoding="utf-8")
        with contextlib.suppress(ImportError):
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(directory / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Writes named numbers of one step."""
        if self._file is not None:
            line = {"step": step, **{name: float(value) for name, value in values.items()}}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, float(value), step)

    def picture(self, step: int, name: str, picture: Image.Image) -> None:
        """Shows a picture in TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes everything."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
