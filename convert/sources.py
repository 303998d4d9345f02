"""Opening a weights file of whatever format."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from convert.pth import read_pth
from sdvar_jax.checkpoint.info import Source
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.checkpoint.safetensors_file import read_safetensors
from sdvar_jax.errors import SdvarError

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"
_CHUNK = 4 * 2**20
_DEEPEST = 32


def read_arrays(path: Path) -> dict[str, LazyArray]:
    """Every array of a file by its dotted place, nested containers flattened; none is read yet.

    Args:
      path: a ``.pth`` (or ``.pt``, ``.bin``: PyTorch's zip format) or ``.safetensors`` file; what
        it is shows in its first bytes, not in its name.

    Raises:
      SdvarError: the file is missing, truncated, foreign, or holds code.
    """
    if path.is_dir():
        raise SdvarError(f"{path} is a directory; give the weights file in it")
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError as error:
        raise SdvarError(f"no such file: {path}") from error
    except OSError as error:
        raise SdvarError(f"cannot read {path}: {error.strerror or error}") from error
    if not head:
        raise SdvarError(f"{path} is empty; download it again")
    if head.startswith(_ZIP):
        arrays = dict(_arrays_in(read_pth(path)))
        if not arrays:
            raise SdvarError(f"{path} holds no tensors")
        return arrays
    if path.suffix == ".safetensors" or head[8:] == b"{":
        return read_safetensors(path)
    if head.startswith(_PICKLE):
        raise SdvarError(
            f"{path} is a bare pickle (PyTorch before 1.6, or no weights at all) and is not "
            "opened, since it could run code; if you trust it, save it again with a recent PyTorch"
        )
    raise SdvarError(f"{path} is neither a PyTorch nor a safetensors file")


def describe_source(path: Path, progress: Callable[[int], None]) -> Source:
    """Name, size and SHA-256 of a file; ``progress`` is called with the bytes read."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                progress(len(chunk))
    except OSError as error:
        raise SdvarError(f"cannot read {path}: {error.strerror or error}") from error
    return Source(path.name, digest.hexdigest(), size)


def _arrays_in(node: Any, place: str = "", depth: int = 0) -> list[tuple[str, LazyArray]]:
    if depth > _DEEPEST:
        raise SdvarError("the file nests its contents too deeply to be a checkpoint")
    if isinstance(node, LazyArray):
        return [(place, node)]
    if isinstance(node, Mapping):
        items = list(node.items())
    elif isinstance(node, list | tuple):
        items = list(enumerate(node))
    else:
        return []
    return [
        found
        for key, value in items
        for found in _arrays_in(value, f"{place}.{key}" if place else str(key), depth + 1)
    ]
