"""The way back: a PyTorch state dict, bit for bit what came in."""

import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from golden_models import TINY_VARS, TINY_VQVAE
from golden_weights import fill, golden_manifest
from pth_writer import save_pth

from convert.configure import Overrides
from convert.sources import read_arrays
from convert.to_flax import convert
from convert.to_torch import export
from sdvar_jax.checkpoint import save_checkpoint
from sdvar_jax.errors import SdvarError
from sdvar_jax.models import VAR, VQVAE

PYRAMID = Overrides(pyramid=TINY_VQVAE.pyramid)


def assert_same_bits(arrays, state):
    assert list(arrays) == list(state)
    for key, value in state.items():
        back = arrays[key].read()
        assert back.dtype == value.dtype, key
        assert back.shape == value.shape, key
        assert np.ascontiguousarray(back).tobytes() == np.ascontiguousarray(value).tobytes(), key


@pytest.mark.parametrize("storage", ["orbax", "safetensors"])
@pytest.mark.parametrize("name", [*TINY_VARS, "vqvae_tiny"])
def test_what_came_in_comes_out(tmp_path, name, storage):
    state = fill(golden_manifest(name))
    if name == "vqvae_tiny":
        state["quantize.ema_vocab_hit_SV"] += 7.5
    save_pth(tmp_path / "in.pth", state)
    convert([tmp_path / "in.pth"], tmp_path / "c", overrides=PYRAMID, storage=storage)
    assert export(tmp_path / "c", tmp_path / "out.safetensors") == len(state)
    assert_same_bits(read_arrays(tmp_path / "out.safetensors"), state)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_in_every_dtype_and_without_some_buffers(tmp_path, var_state, as_dtype, dtype):
    state = as_dtype(var_state, dtype)
    del state["attn_bias_for_masking"], state["blocks.1.attn.zero_k_bias"]
    state["pos_start"] = var_state["pos_start"]  # one key in a dtype of its own
    save_pth(tmp_path / "in.pth", state)
    convert([tmp_path / "in.pth"], tmp_path / "c")
    export(tmp_path / "c", tmp_path / "out.safetensors")
    assert_same_bits(read_arrays(tmp_path / "out.safetensors"), state)


def test_what_was_stored_in_8_bits_comes_out_in_floats(tmp_path, var_file, var_state):
    options = {"dtype": "int8", "storage": "safetensors"}
    convert([var_file], tmp_path / "c", overrides=PYRAMID, **options)
    assert export(tmp_path / "c", tmp_path / "out.safetensors") == len(var_state)
    arrays = read_arrays(tmp_path / "out.safetensors")
    assert list(arrays) == list(var_state)
    weight, was = arrays["head.weight"].read(), var_state["head.weight"]
    assert (weight.dtype, weight.shape) == (np.float32, was.shape)
    assert (np.abs(weight - was) <= 1.001 / 254 * np.abs(was).max(1, keepdims=True)).all()
    assert arrays["head.bias"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    ("model", "config", "manifest"),
    [(VAR, TINY_VARS["var_tiny_d2_l2"], "var_tiny_d2_l2"), (VQVAE, TINY_VQVAE, "vqvae_tiny")],
)
def test_a_model_that_never_was_in_pytorch_gets_every_key(tmp_path, model, config, manifest):
    made = model(config, rngs=nnx.Rngs(0))
    part = "var" if model is VAR else "vqvae"
    save_checkpoint(tmp_path / "c", **{part: made})
    export(tmp_path / "c", tmp_path / "out.safetensors")
    arrays = read_arrays(tmp_path / "out.safetensors")
    assert {key: array.shape for key, array in arrays.items()} == golden_manifest(manifest)


def test_the_part_must_be_told_where_there_are_several(tmp_path, var_file, vqvae_file):
    convert([var_file, vqvae_file], tmp_path / "c", storage="safetensors")
    with pytest.raises(SdvarError, match="holds var, vqvae; choose one with --part"):
        export(tmp_path / "c", tmp_path / "out.safetensors")
    with pytest.raises(SdvarError, match="holds no draft"):
        export(tmp_path / "c", tmp_path / "out.safetensors", "draft")
    assert not (tmp_path / "out.safetensors").exists()
    assert export(tmp_path / "c", tmp_path / "out.safetensors", "var") == len(
        golden_manifest("var_tiny_d2_l2")
    )


def test_the_format_must_be_known(tmp_path):
    with pytest.raises(SdvarError, match="cannot tell the format"):
        export(tmp_path / "c", tmp_path / "out.bin")


def test_pth_says_when_pytorch_is_missing(tmp_path, var_file, monkeypatch):
    convert([var_file], tmp_path / "c", storage="safetensors")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(SdvarError, match=r"writing \.pth needs PyTorch"):
        export(tmp_path / "c", tmp_path / "out.pth")


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_torch_gets_back_what_it_saved(tmp_path, var_state, as_dtype, dtype):
    torch = pytest.importorskip("torch")
    saved = {
        key: torch.from_numpy(np.array(value)).to(
            getattr(torch, dtype) if value.dtype == np.float32 else torch.int64
        )
        for key, value in var_state.items()
    }
    torch.save(saved, tmp_path / "in.pth")
    convert([tmp_path / "in.pth"], tmp_path / "c")
    export(tmp_path / "c", tmp_path / "out.pth")
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(back) == list(saved)
    for key, tensor in saved.items():
        assert back[key].dtype == tensor.dtype, key
        assert torch.equal(back[key], tensor), key
