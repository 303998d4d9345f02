"""Reading PyTorch's ``.pth`` files without PyTorch and without running anything in them.

Such a file is an uncompressed zip: a pickle with the structure, and each tensor's storage as a raw
record. The pickle is read with a closed list of names, each replaced by a harmless stand-in, so a
file cannot name, let alone call, anything else. Tensors become ``LazyArray``s that map their part
of the file when they are read.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.errors import SdvarError

_STORAGES = {
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "DoubleStorage": np.float64,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Dtypes appear by name in what trainers save beside the weights.
_TORCH_NAMES = (
    *("float32", "float", "float16", "half", "bfloat16", "float64", "double"),
    *("int64", "long", "int32", "int", "int16", "short", "int8", "uint8", "bool"),
    *("strided", "contiguous_format"),
)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LARGEST_PICKLE = 256 * 2**20


class _Refused(Exception):
    """The pickle names something that a file of weights has no business with."""


class _Damaged(Exception):
    """The file contradicts itself."""


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class _Storage:
    dtype: np.dtype
    offset: int
    length: int


def read_pth(path: Path) -> Any:
    """What was saved, with ``LazyArray``s in place of tensors; none is read yet.

    Args:
      path: a file that ``torch.save`` wrote (the zip format, default since PyTorch 1.6).

    Raises:
      SdvarError: the file is truncated, damaged, of another format, or holds code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(path, archive).load()
    except (zipfile.BadZipFile, EOFError, _Damaged) as error:
        raise SdvarError(
            f"{path} is truncated or not a PyTorch file ({error}); download it again"
        ) from error
    except _Refused as error:
        raise SdvarError(
            f"{path} is refused: it asks for {error}, which weights do not need and which could "
            "run code; nothing was run. Save the plain state dict instead: "
            "torch.save(model.state_dict(), FILE)"
        ) from error
    except OSError as error:
        raise SdvarError(f"cannot read {path}: {error.strerror or error}") from error
    except (pickle.UnpicklingError, ValueError, TypeError, KeyError, IndexError) as error:
        raise _broken_pickle(path, error) from error
    except (AttributeError, MemoryError, OverflowError, RecursionError) as error:
        raise _broken_pickle(path, error) from error


def _broken_pickle(path: Path, error: Exception) -> SdvarError:
    lines = str(error).splitlines() or [type(error).__name__]
    return SdvarError(f"{path} is damaged: its structure cannot be read ({lines[0][:200]})")


class _Archive:
    """The zip file of one ``torch.save``."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        self._size = path.stat().st_size
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise _Damaged("a zip file without data.pkl")
        self._root = pickles[0].removesuffix("data.pkl")
        self._records = {info.filename: info for info in archive.infolist()}

    def load(self) -> Any:
        order = self._records.get(f"{self._root}byteorder")
        if order is not None and self._archive.read(order).strip() != b"little":
            raise _Damaged("its numbers are big endian, which is not supported")
        structure = self._records[f"{self._root}data.pkl"]
        if structure.file_size > _LARGEST_PICKLE:
            raise _Damaged(f"its structure alone takes {structure.file_size} bytes")
        return _Unpickler(self._archive.read(structure), self).load()

    def storage(self, key: str, dtype: np.dtype, length: int) -> _Storage:
        """Where the storage ``key`` of ``length`` elements lies in the file."""
        record = self._records.get(f"{self._root}data/{key}")
        if record is None:
            raise _Damaged(f"storage {key} is missing")
        if record.compress_type != zipfile.ZIP_STORED:
            raise _Damaged(f"storage {key} is compressed")
        if length * dtype.itemsize > record.file_size:
            raise _Damaged(f"storage {key} is too short")
        with self._path.open("rb") as file:
            file.seek(record.header_offset)
            header = file.read(_LOCAL_HEADER.size)
        if len(header) != _LOCAL_HEADER.size:
            raise _Damaged(f"storage {key} lies outside the file")
        signature, name, extra = _LOCAL_HEADER.unpack(header)
        offset = record.header_offset + _LOCAL_HEADER.size + name + extra
        if signature != b"PK\x03\x04" or offset + record.file_size > self._size:
            raise _Damaged(f"storage {key} lies outside the file")
        return _Storage(dtype, offset, length)

    def tensor(self, storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> LazyArray:
        """Stands in for the function that rebuilds a tensor."""
        shape, strides = tuple(shape), tuple(strides)
        numbers = (start, *shape, *strides)
        if not isinstance(storage, _Storage) or len(shape) != len(strides):
            raise _Damaged("a tensor without storage")
        if any(type(number) is not int or number < 0 for number in numbers):
            raise _Damaged("a tensor with impossible sizes")
        elements = math.prod(shape)
        last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if elements and (last >= storage.length or elements > storage.length):
            raise _Damaged("a tensor reaches beyond its storage")
        offset = storage.offset + start * storage.dtype.itemsize
        return LazyArray.in_file(self._path, offset, shape, storage.dtype, strides)


class _Unpickler(pickle.Unpickler):
    """Builds plain containers and lazy arrays; knows no other name."""

    def __init__(self, data: bytes, archive: _Archive) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._archive = archive
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("collections", "defaultdict"): _plain_dict,
            ("torch._utils", "_rebuild_tensor_v2"): archive.tensor,
            ("torch._utils", "_rebuild_parameter"): _unwrap,
            ("torch", "Size"): tuple,
            ("torch", "device"): _device,
            **{("torch", name): _StorageType(np.dtype(dtype)) for name, dtype in _STORAGES.items()},
            **{("torch", name): name for name in _TORCH_NAMES},
            **{(module, "dict"): _plain_dict for module in ("builtins", "__builtin__")},
        }

    def find_class(self, module: str, name: str) -> Any:
        known = self._known.get((module, name))
        if known is None:
            raise _Refused(f"{module}.{name}")
        return known

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise _Damaged("an unknown kind of record")
        _, kind, key, _, length = pid
        if not (isinstance(kind, _StorageType) and type(key) is str and type(length) is int):
            raise _Damaged("an unknown kind of storage")
        return self._archive.storage(key, kind.dtype, length)


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _unwrap(data: Any, *_: Any) -> Any:
    return data


def _device(*args: Any) -> str:
    return ":".join(str(arg) for arg in args if isinstance(arg, str | int))
