"""Writes PyTorch's ``.pth`` format without PyTorch, well-formed or not, for tests of the reader."""

import io
import pickle
import zipfile
from typing import ClassVar

import ml_dtypes
import numpy as np

_STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.int64): "LongStorage",
}


class Name:
    """A name that the pickle refers to, such as a class or a function."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """A call that unpickling would make."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Storage:
    def __init__(self, dtype, key, length):
        self.dtype, self.key, self.length = dtype, key, length


class _Pickler(pickle._Pickler):
    """The pure Python pickler; it writes names without importing them."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.records = {}
        # The memo goes by identity, so everything made on the way must stay alive.
        self._alive = []

    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            kind = self._keep(Name("torch", _STORAGES[obj.dtype]))
            return self._keep(("storage", kind, obj.key, "cpu", obj.length))
        return None

    def _keep(self, obj):
        self._alive.append(obj)
        return obj

    def _save_name(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    def _save_call(self, obj):
        self.save(self._keep(obj.function))
        self.save(self._keep(tuple(obj.arguments)))
        self.write(pickle.REDUCE)

    def _save_array(self, array):
        key = str(len(self.records))
        self.records[key] = np.ascontiguousarray(array).tobytes()
        strides = tuple(int(np.prod(array.shape[i + 1 :])) for i in range(array.ndim))
        storage = Storage(array.dtype, key, array.size)
        self._save_call(self._keep(tensor_call(storage, 0, tuple(map(int, array.shape)), strides)))

    dispatch[Name] = _save_name
    dispatch[Call] = _save_call
    dispatch[np.ndarray] = _save_array


def tensor_call(storage, offset, shape, strides):
    """The call that rebuilds a tensor."""
    hooks = Call(Name("collections", "OrderedDict"))
    function = Name("torch._utils", "_rebuild_tensor_v2")
    return Call(function, storage, offset, shape, strides, False, hooks)


def save_pth(path, obj, *, records=None, byteorder=b"little", compression=zipfile.ZIP_STORED):
    """Saves nested containers with arrays as ``torch.save`` would.

    Args:
      path: the file.
      obj: containers, arrays, and ``Name``, ``Call``, ``Storage`` for what is not well-formed.
      records: further raw records, key -> bytes.
      byteorder: what the file says of itself.
      compression: of the zip's entries; PyTorch compresses none.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer)
    pickler.dump(obj)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, data in {**pickler.records, **(records or {})}.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3\n")
