"""Reading and writing ``.safetensors`` one array at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.errors import SdvarError

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_LENGTH_BYTES = 8
_ALIGNMENT = 8


def read_safetensors(path: Path) -> dict[str, LazyArray]:
    """The arrays of a file, in its order; none is read yet.

    Raises:
      SdvarError: the file is missing, truncated, not a safetensors file, or holds a dtype that no
        model here has.
    """
    try:
        # The library checks the header: bounds, overlaps, and that the file is complete.
        with safetensors.safe_open(path, "np"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            header = json.loads(file.read(length))
    except safetensors.SafetensorError as error:
        raise SdvarError(
            f"{path} is truncated or not a safetensors file ({_first_line(error)}); download it "
            "again"
        ) from error
    except OSError as error:
        raise SdvarError(f"cannot read {path}: {error.strerror or _first_line(error)}") from error
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    foreign = [name for name, entry in entries.items() if entry["dtype"] not in _DTYPES]
    if foreign:
        raise SdvarError(f"{path} holds arrays of a dtype that is not supported: {foreign}")
    start = _LENGTH_BYTES + length
    return {
        name: LazyArray.in_file(
            path,
            start + entry["data_offsets"][0],
            tuple(entry["shape"]),
            _DTYPES[entry["dtype"]],
        )
        for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"])
    }


def write_safetensors(
    path: Path, arrays: Mapping[str, LazyArray], progress: Callable[[int], None] | None = None
) -> None:
    """Writes arrays in the order given, holding one at a time in memory.

    Args:
      path: the file; the caller sees to it that a half-written one does not stay.
      arrays: name -> array.
      progress: called with the bytes of each array written.
    """
    header: dict[str, object] = {}
    offset = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH_BYTES, "little"))
        file.write(text)
        for array in arrays.values():
            file.write(np.ascontiguousarray(array.read()).reshape(-1).view(np.uint8).data)
            if progress is not None:
                progress(array.nbytes)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
