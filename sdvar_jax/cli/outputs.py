"""The files a run writes: checked before it starts, each complete or absent after it."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import atomic_file, check_file_destination
from sdvar_jax.runtime.directories import ensure_directory

if TYPE_CHECKING:
    import numpy as np

    from sdvar_jax.result import SampleResult

_LONGEST_NAME = 40
# Lists of plain values stand in one line each; a string with brackets in it is left alone.
_INNERMOST_LIST = re.compile(r'\[\s[^\[\]{}"]*\]')


def check_outputs(files: Mapping[str, Path | None], directory: Path | None = None) -> None:
    """Refuses outputs that could not be written, before any long work.

    Args:
      files: option -> file; None where it is not wanted.
      directory: to be made now; nothing is made if a file is refused.

    Raises:
      SdvarError: a file or the directory cannot be written, or two options name the same file.
    """
    seen: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        check_file_destination(path)
        real = path.expanduser().resolve()
        if real in seen:
            raise SdvarError(f"{seen[real]} and {option} name the same file {path}")
        seen[real] = option
    if directory is not None:
        ensure_directory(directory)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a compressed ``.npz``."""
    import numpy as np

    with atomic_file(path) as aside, aside.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Writes JSON that a person can read."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    text = _INNERMOST_LIST.sub(lambda found: " ".join(found[0].split()), text)
    with atomic_file(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def token_arrays(tokens: Sequence[np.ndarray], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Tokens as they are stored: ``scale_00``, ... int32 [samples, side**2], and ``labels``."""
    import numpy as np

    arrays = {f"scale_{scale:02d}": np.asarray(each, np.int32) for scale, each in enumerate(tokens)}
    return {**arrays, "labels": np.asarray(labels, np.int32)}


def trace_arrays(result: SampleResult) -> dict[str, np.ndarray]:
    """The traces of all batches in one: [target calls, samples, ...] each, and ``labels``.

    Batches that took fewer target calls are filled up with what an unused call holds.
    """
    import numpy as np

    count = len(result.labels)
    arrays = {
        field.name: np.concatenate(
            [np.asarray(getattr(trace, field.name)) for trace in result.traces], axis=1
        )[:, :count]
        for field in dataclasses.fields(result.traces[0])
    }
    return {**arrays, "labels": np.asarray(result.labels, np.int32)}


def write_singles(
    directory: Path,
    images: np.ndarray,
    captions: Sequence[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes each image [samples, side, side, 3] as a PNG named by its number and caption."""
    from sdvar_jax.imaging import save_png

    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        save_png(image, directory.expanduser() / single_name(index, caption), metadata)


def single_name(index: int, caption: str) -> str:
    """The file name of a picture, such as "0003-207-golden-retriever.png"."""
    plain = unicodedata.normalize("NFKD", caption).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_LONGEST_NAME].strip("-")
    return f"{index:04d}-{slug or 'picture'}.png"
