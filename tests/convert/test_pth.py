"""The reader of ``.pth`` files: right about good ones, safe and clear about bad ones."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from pth_writer import Call, Name, Storage, save_pth, tensor_call

from convert.pth import read_pth
from sdvar_jax.errors import SdvarError


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_arrays_come_back_as_saved(tmp_path, dtype):
    saved = {"a": np.arange(24).reshape(2, 3, 4).astype(dtype), "b": {"c": np.zeros(5, dtype)}}
    save_pth(tmp_path / "f.pth", saved)
    read = read_pth(tmp_path / "f.pth")
    assert read["a"].dtype == dtype
    assert read["a"].shape == (2, 3, 4)
    np.testing.assert_array_equal(read["a"].read(), saved["a"])
    np.testing.assert_array_equal(read["b"]["c"].read(), saved["b"]["c"])


def test_views_of_one_storage_are_read_with_their_strides(tmp_path):
    data = np.arange(12, dtype=np.float32)
    storage = Storage(data.dtype, "0", 12)
    saved = {
        "transposed": tensor_call(storage, 0, (4, 3), (1, 4)),
        "tail": tensor_call(storage, 8, (2, 2), (2, 1)),
        "empty": tensor_call(storage, 0, (0, 3), (3, 1)),
    }
    save_pth(tmp_path / "f.pth", saved, records={"0": data.tobytes()})
    read = read_pth(tmp_path / "f.pth")
    np.testing.assert_array_equal(read["transposed"].read(), data.reshape(3, 4).T)
    np.testing.assert_array_equal(read["tail"].read(), [[8, 9], [10, 11]])
    assert read["empty"].read().shape == (0, 3)


def test_what_trainers_save_beside_the_weights_is_read(tmp_path):
    saved = {
        "epoch": 3,
        "size": Call(Name("torch", "Size"), [1, 2]),
        "device": Call(Name("torch", "device"), "cuda", 0),
        "dtype": Name("torch", "bfloat16"),
        "args": (None, True, 1.5, "text", [1]),
    }
    save_pth(tmp_path / "f.pth", saved)
    assert read_pth(tmp_path / "f.pth") == {
        "epoch": 3,
        "size": (1, 2),
        "device": "cuda:0",
        "dtype": "bfloat16",
        "args": (None, True, 1.5, "text", [1]),
    }


class TestCode:
    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch.serialization", "load"),
            ("torch._utils", "__dict__"),
            ("collections", "OrderedDict.__init__"),
        ],
    )
    def test_is_refused_by_name_and_never_run(self, tmp_path, module, name):
        marker = tmp_path / "was-run"
        save_pth(tmp_path / "f.pth", {"w": Call(Name(module, name), f"touch {marker}")})
        with pytest.raises(SdvarError, match=rf"asks for {module}\.{name}") as caught:
            read_pth(tmp_path / "f.pth")
        assert "\n" not in str(caught.value)
        assert not marker.exists()

    def test_is_refused_where_nothing_calls_it(self, tmp_path):
        save_pth(tmp_path / "f.pth", {"w": Name("subprocess", "Popen")})
        with pytest.raises(SdvarError, match="nothing was run"):
            read_pth(tmp_path / "f.pth")


class TestDamage:
    def test_truncated(self, tmp_path):
        path = tmp_path / "f.pth"
        save_pth(path, {"w": np.ones(1000, np.float32)})
        whole = path.read_bytes()
        for length in (5, 60, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(SdvarError, match="truncated or not a PyTorch file"):
                read_pth(path)

    def test_a_zip_of_something_else(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "f.pth", "w") as archive:
            archive.writestr("photo.txt", "hello")
        with pytest.raises(SdvarError, match=r"without data\.pkl"):
            read_pth(tmp_path / "f.pth")

    def test_a_broken_structure(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "f.pth", "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02}q\x00(X\x01")
        with pytest.raises(SdvarError, match=r"structure cannot be read|truncated"):
            read_pth(tmp_path / "f.pth")

    @pytest.mark.parametrize(
        ("call", "complaint"),
        [
            (tensor_call(Storage(np.dtype(np.float32), "0", 5), 0, (5,), (1,)), "too short"),
            (tensor_call(Storage(np.dtype(np.float32), "9", 4), 0, (4,), (1,)), "missing"),
            (tensor_call(Storage(np.dtype(np.float32), "0", 4), 0, (2, 3), (3, 1)), "beyond"),
            (tensor_call(Storage(np.dtype(np.float32), "0", 4), 3, (2,), (1,)), "beyond"),
            (tensor_call(Storage(np.dtype(np.float32), "0", 4), 0, (10**9,), (0,)), "beyond"),
            (tensor_call(Storage(np.dtype(np.float32), "0", 4), 0, (4,), (-1,)), "impossible"),
            (tensor_call("storage", 0, (4,), (1,)), "without storage"),
            (Call(Name("torch._utils", "_rebuild_tensor_v2"), 1), "structure cannot be read"),
        ],
    )
    def test_a_tensor_outside_of_its_storage(self, tmp_path, call, complaint):
        save_pth(tmp_path / "f.pth", {"w": call}, records={"0": bytes(16)})
        with pytest.raises(SdvarError, match=complaint):
            read_pth(tmp_path / "f.pth")

    def test_big_endian(self, tmp_path):
        save_pth(tmp_path / "f.pth", {"w": np.ones(3, np.float32)}, byteorder=b"big")
        with pytest.raises(SdvarError, match="big endian"):
            read_pth(tmp_path / "f.pth")

    def test_compressed(self, tmp_path):
        saved = {"w": np.ones(300, np.float32)}
        save_pth(tmp_path / "f.pth", saved, compression=zipfile.ZIP_DEFLATED)
        with pytest.raises(SdvarError, match="compressed"):
            read_pth(tmp_path / "f.pth")


@pytest.mark.torch
class TestAgainstPyTorch:
    def test_reads_what_torch_saves(self, tmp_path):
        torch = pytest.importorskip("torch")
        generator = torch.Generator().manual_seed(0)
        base = torch.randn(6, 8, generator=generator)
        saved = {
            "plain": base,
            "half": base.half(),
            "bfloat16": base.bfloat16(),
            "long": torch.arange(5),
            "transposed": base.T,
            "slice": base[1:4, 2::3],
            "permuted": base.reshape(2, 3, 8).permute(2, 0, 1),
            "expanded": base[:1].expand(1, 8),
            "parameter": torch.nn.Parameter(base),
            "scalar": torch.tensor(3.5),
            "empty": torch.zeros(0, 3),
        }
        torch.save({"model": saved, "size": base.shape, "dtype": base.dtype}, tmp_path / "f.pth")
        read = read_pth(tmp_path / "f.pth")
        assert read["size"] == (6, 8)
        assert read["dtype"] == "float32"
        for key, tensor in saved.items():
            array = read["model"][key]
            assert array.shape == tuple(tensor.shape), key
            assert str(array.dtype) == str(tensor.dtype).removeprefix("torch."), key
            np.testing.assert_array_equal(
                array.read().astype(np.float64), tensor.detach().double().numpy(), err_msg=key
            )

    def test_a_module_saved_whole_is_refused(self, tmp_path):
        torch = pytest.importorskip("torch")
        torch.save(torch.nn.Linear(2, 2), tmp_path / "f.pth")
        with pytest.raises(SdvarError, match=r"torch\.nn\.modules\.linear\.Linear"):
            read_pth(tmp_path / "f.pth")

    def test_the_test_writer_writes_what_torch_reads(self, tmp_path):
        torch = pytest.importorskip("torch")
        saved = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
        save_pth(tmp_path / "f.pth", saved)
        read = torch.load(tmp_path / "f.pth", weights_only=True, mmap=True)
        np.testing.assert_array_equal(read["a"].numpy(), saved["a"])
