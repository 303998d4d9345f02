"""Our writer and reader agree with the safetensors library."""

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.checkpoint.safetensors_file import read_safetensors, write_safetensors
from sdvar_jax.errors import SdvarError

ARRAYS = {
    "b": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "a": np.arange(5).astype(ml_dtypes.bfloat16),
    "half": np.ones((2, 1), np.float16),
    "long": np.arange(3),
    "empty": np.zeros((0, 4), np.float32),
}


def test_the_library_reads_what_is_written(tmp_path):
    path = tmp_path / "f.safetensors"
    write_safetensors(path, {name: LazyArray.of(array) for name, array in ARRAYS.items()})
    read = safetensors.numpy.load_file(path)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_what_the_library_writes_is_read(tmp_path):
    path = tmp_path / "f.safetensors"
    contiguous = {name: np.ascontiguousarray(array) for name, array in ARRAYS.items()}
    safetensors.numpy.save_file(contiguous, path, metadata={"format": "pt"})
    read = read_safetensors(path)
    assert read.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (read[name].shape, read[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(read[name].read(), array)


def test_order_is_kept(tmp_path):
    path = tmp_path / "f.safetensors"
    write_safetensors(path, {name: LazyArray.of(array) for name, array in ARRAYS.items()})
    assert list(read_safetensors(path)) == list(ARRAYS)


def test_damage_is_one_clear_line(tmp_path):
    path = tmp_path / "f.safetensors"
    write_safetensors(path, {"a": LazyArray.of(ARRAYS["b"])})
    whole = path.read_bytes()
    for data in (whole[:-1], whole[:20], whole + b"x", b"", b"\xff" * 50):
        path.write_bytes(data)
        with pytest.raises(SdvarError, match="truncated or not a safetensors file") as caught:
            read_safetensors(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(SdvarError):
        read_safetensors(tmp_path / "missing.safetensors")
