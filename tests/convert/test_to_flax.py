"""Converting: right for good input; one clear line and nothing left behind for bad input."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from golden_models import TINY_VQVAE, golden
from golden_weights import fill, golden_manifest
from pth_writer import Call, Name, save_pth

import convert.to_flax as to_flax_module
from convert.configure import Overrides
from convert.to_flax import convert
from sdvar_jax.checkpoint import load_checkpoint, load_weights, read_info
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.checkpoint.safetensors_file import write_safetensors
from sdvar_jax.config import PYRAMID_256
from sdvar_jax.errors import SdvarError

ROOT = Path(__file__).parents[2]
SAFETENSORS = {"storage": "safetensors"}


@pytest.fixture
def output(tmp_path):
    (tmp_path / "made").mkdir()
    return tmp_path / "made" / "checkpoint"


@pytest.fixture
def refused(output):
    """Converts, expects one clear line and nothing left behind; returns the line."""

    def refused(*sources, **options):
        with pytest.raises(SdvarError) as caught:
            convert(list(sources), output, **options)
        assert list(output.parent.iterdir()) == []
        message = str(caught.value)
        assert "\n" not in message
        return message

    return refused


class TestConverted:
    def test_models_give_the_original_logits(self, var_file, vqvae_file, output):
        report = convert([var_file, vqvae_file], output)
        assert report.notes == ()
        loaded = load_checkpoint(output)
        stored = golden("var_tiny_d2_l2")
        logits = loaded.var.teacher_forced(
            jnp.asarray(stored["labels"]), jnp.asarray(stored["x_BLCv_wo_first_l"])
        )
        np.testing.assert_allclose(logits, stored["logits"], atol=2e-4)
        assert loaded.vqvae.config == TINY_VQVAE
        np.testing.assert_array_equal(
            loaded.vqvae.quantizer.codebook[...],
            fill(golden_manifest("vqvae_tiny"))["quantize.embedding.weight"],
        )

    def test_checkpoints_describe_themselves(self, var_file, vqvae_file, output):
        convert([var_file, vqvae_file], output, **SAFETENSORS)
        info = read_info(output)
        assert list(info.parts) == ["var", "vqvae"]
        assert info.var_config.depth == 2
        assert [source.name for source in info.sources] == ["var.pth", "vqvae.pth"]
        assert info.sources[0].sha256 == hashlib.sha256(var_file.read_bytes()).hexdigest()
        assert info.sources[0].size == var_file.stat().st_size
        assert json.loads((output / "checkpoint.json").read_text())["format_version"] == 1

    def test_to_8_bits(self, var_file, vqvae_file, output, var_state):
        info = convert([var_file, vqvae_file], output, dtype="int8", **SAFETENSORS).info
        other = output.parent / "floats"
        floats = convert([var_file, vqvae_file], other, dtype="bfloat16", **SAFETENSORS).info
        assert info.parts["var"].dtype == "int8"
        assert info.parts["vqvae"].dtype == floats.parts["vqvae"].dtype
        assert info.parts["vqvae"].size == floats.parts["vqvae"].size
        stored = load_weights(output, "var").stored_arrays()
        assert stored["head_kernel"].dtype == np.int8
        assert stored["head_bias"].dtype == ml_dtypes.bfloat16
        kernel = np.asarray(load_checkpoint(output).var.head_kernel[...])
        was = var_state["head.weight"].T
        assert (abs(kernel - was) <= 1.001 / 254 * abs(was).max(0)).all()

    def test_nested_trainer_checkpoint(self, tmp_path, output, var_state, vqvae_state):
        save_pth(
            tmp_path / "trainer.pth",
            {
                "epoch": 1,
                "trainer": {
                    "var_wo_ddp": {f"_orig_mod.module.{k}": v for k, v in var_state.items()},
                    "vae_local": vqvae_state,
                    "var_opt": {"state": {0: {"exp_avg": np.zeros(3, np.float32)}}},
                },
            },
        )
        report = convert([tmp_path / "trainer.pth"], output, **SAFETENSORS)
        assert list(report.info.parts) == ["var", "vqvae"]
        assert "1 tensors outside of the models are left out" in report.notes[0]

    def test_safetensors_source(self, tmp_path, output, var_state, as_dtype):
        arrays = as_dtype(var_state, ml_dtypes.bfloat16)
        path = tmp_path / "var.safetensors"
        write_safetensors(path, {k: LazyArray.of(v) for k, v in arrays.items()})
        convert([path], output)
        kernel = load_checkpoint(output).var.head_kernel[...]
        assert kernel.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(kernel), arrays["head.weight"].T)

    def test_one_file_with_both_under_prefixes(self, save, output, var_state, vqvae_state):
        both = {f"var.{k}": v for k, v in var_state.items()}
        both |= {f"vae.{k}": v for k, v in vqvae_state.items()}
        report = convert([save("both", both)], output, **SAFETENSORS)
        assert list(report.info.parts) == ["var", "vqvae"]

    def test_a_draft_comes_along(self, save, var_file, vqvae_file, output):
        draft = save("draft", fill(golden_manifest("var_tiny_d3_l2")))
        convert([var_file, vqvae_file], output, draft=draft, **SAFETENSORS)
        loaded = load_checkpoint(output)
        assert (loaded.var.config.depth, loaded.draft.config.depth) == (2, 3)

    def test_parts_can_be_chosen(self, var_file, vqvae_file, output):
        convert([var_file, vqvae_file], output, parts=["vqvae"], **SAFETENSORS)
        assert list(read_info(output).parts) == ["vqvae"]

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
    def test_dtype_can_be_changed_but_not_the_quantizers(
        self, var_file, vqvae_file, output, dtype, var_state
    ):
        report = convert([var_file, vqvae_file], output, dtype=dtype, **SAFETENSORS)
        assert report.info.parts["var"].dtype == dtype
        loaded = load_checkpoint(output)
        kernel = loaded.var.head_kernel[...]
        np.testing.assert_array_equal(
            np.asarray(kernel), var_state["head.weight"].T.astype(kernel.dtype)
        )
        assert loaded.vqvae.quantizer.codebook[...].dtype == jnp.float32

    def test_a_vqvae_alone_takes_a_pyramid(self, vqvae_file, output):
        overrides = Overrides(pyramid=TINY_VQVAE.pyramid)
        convert([vqvae_file], output, overrides=overrides, **SAFETENSORS)
        assert read_info(output).vqvae_config == TINY_VQVAE

    def test_replaces_a_checkpoint_only_if_asked_to(self, var_file, output):
        convert([var_file], output, **SAFETENSORS)
        with pytest.raises(SdvarError, match="exists and is not empty"):
            convert([var_file], output, dtype="float16", **SAFETENSORS)
        assert read_info(output).parts["var"].dtype == "float32"
        convert([var_file], output, dtype="float16", overwrite=True, **SAFETENSORS)
        assert read_info(output).parts["var"].dtype == "float16"
        assert [path.name for path in output.parent.iterdir()] == ["checkpoint"]


class TestKeys:
    def test_all_that_do_not_fit_are_named_in_one_message(self, save, var_state, refused):
        broken = save(
            "var",
            var_state,
            head__bias=None,
            blocks__1__ffn__fc1__weight=None,
            lora=np.zeros(3, np.float32),
            blocks__0__attn__q_bias=np.zeros(7, np.float32),
            class_emb__weight=np.zeros((11, 5), np.float32),
        )
        message = refused(broken)
        assert "2 missing: blocks.1.ffn.fc1.weight, head.bias" in message
        assert "1 unexpected: lora" in message
        assert "blocks.0.attn.q_bias [7] instead of [128]" in message
        assert "class_emb.weight [11, 5] instead of [11, 128]" in message

    def test_of_both_models_are_named_together(self, save, var_state, vqvae_state, refused):
        message = refused(
            save("var", var_state, head__bias=None),
            save("vqvae", vqvae_state, quant_conv__bias=None),
        )
        assert "VAR: 1 missing: head.bias" in message
        assert "VQVAE: 1 missing: quant_conv.bias" in message

    @pytest.mark.parametrize("key", ["class_emb.weight", "word_embed.weight", "pos_1LC"])
    def test_that_tell_the_configuration_are_named_too(self, save, var_state, refused, key):
        message = refused(save("var", {k: v for k, v in var_state.items() if k != key}))
        assert key in message

    def test_of_a_missing_block(self, save, var_state, refused):
        kept = {k: v for k, v in var_state.items() if not k.startswith("blocks.0.")}
        assert "12 missing: " in refused(save("var", kept))

    def test_of_another_dtype_are_named(self, save, var_state, refused):
        message = refused(save("var", var_state, head__bias=np.zeros(64, np.int64)))
        assert "dtypes that are not supported: head.bias (int64)" in message


class TestValues:
    def test_nan_and_inf_are_named(self, save, var_state, refused):
        bias, kernel = var_state["head.bias"].copy(), var_state["head.weight"].copy()
        bias[3], kernel[0, 1] = np.nan, -np.inf
        message = refused(save("var", var_state, head__bias=bias, head__weight=kernel))
        assert "NaN or infinite values in head.weight, head.bias" in message

    def test_too_large_for_float16_are_named(self, save, var_state, refused):
        bias = var_state["head.bias"].copy()
        bias[3] = 1e6
        path = save("var", var_state, head__bias=bias)
        assert "too large for float16 in head.bias" in refused(path, dtype="float16")

    def test_of_buffers_must_follow_from_the_configuration(self, save, var_state, refused):
        bias = var_state["attn_bias_for_masking"].copy()
        bias[0, 0, 2, 7] = 0
        path = save(
            "var",
            var_state,
            attn_bias_for_masking=bias,
            blocks__0__attn__zero_k_bias=np.ones(128, np.float32),
        )
        message = refused(path)
        assert "attn_bias_for_masking, blocks.0.attn.zero_k_bias" in message


class TestFiles:
    def test_missing(self, tmp_path, refused):
        assert "no such file" in refused(tmp_path / "nothing.pth")

    def test_directory(self, tmp_path, refused):
        assert "is a directory" in refused(tmp_path)

    def test_empty(self, tmp_path, refused):
        (tmp_path / "f.pth").touch()
        assert "is empty" in refused(tmp_path / "f.pth")

    def test_truncated(self, var_file, refused):
        var_file.write_bytes(var_file.read_bytes()[:100_000])
        assert "truncated" in refused(var_file)

    def test_truncated_safetensors(self, tmp_path, var_state, refused):
        path = tmp_path / "var.safetensors"
        write_safetensors(path, {k: LazyArray.of(v) for k, v in var_state.items()})
        path.write_bytes(path.read_bytes()[:100_000])
        assert "truncated" in refused(path)

    def test_with_code_in_it(self, tmp_path, var_state, refused):
        code = Call(Name("os", "system"), f"touch {tmp_path / 'was-run'}")
        save_pth(tmp_path / "f.pth", {**var_state, "head.bias": code})
        assert "os.system" in refused(tmp_path / "f.pth")
        assert not (tmp_path / "was-run").exists()

    def test_bare_pickle(self, tmp_path, refused):
        (tmp_path / "f.pth").write_bytes(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
        assert "bare pickle" in refused(tmp_path / "f.pth")

    @pytest.mark.parametrize("name", ["f.pth", "f.safetensors"])
    def test_foreign(self, tmp_path, refused, name):
        (tmp_path / name).write_bytes(b"<html>not found</html>" * 10)
        assert "not a safetensors file" in refused(tmp_path / name) or "neither" in refused(
            tmp_path / name
        )

    def test_twice_the_same_kind(self, var_file, refused):
        assert "both hold a VAR" in refused(var_file, var_file)

    def test_unreadable(self, var_file, refused, monkeypatch):
        def open_(self, *args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", open_)
        assert "Permission denied" in refused(var_file)


def test_8_bits_need_safetensors(var_file, refused):
    assert "int8 weights cannot be stored as orbax" in refused(var_file, dtype="int8")


class TestBelongingTogether:
    def test_var_and_vqvae(self, var_file, save, refused):
        other = save("vqvae", fill(golden_manifest("vqvae_256layout")))
        message = refused(var_file, other)
        assert "10 scales" in message or "mis-shaped" in message or "vocab_size" in message

    def test_var_and_vqvae_of_another_vocabulary(self, var_file, save, vqvae_state, refused):
        other = save(
            "vqvae",
            vqvae_state,
            quantize__embedding__weight=np.zeros((32, 8), np.float32),
            quantize__ema_vocab_hit_SV=np.zeros((4, 32), np.float32),
        )
        assert "vocab_size 64 and 32" in refused(var_file, other)

    def test_draft_and_target(self, var_file, save, refused):
        draft = save("draft", fill(golden_manifest("handoff", "draft")))
        message = refused(var_file, draft=draft)
        assert "pyramid 1-2-3-4-5-6-8-10-13-16 and 1-2-3-4" in message
        assert "vocab_size 32 and 64" in message

    def test_a_wrong_pyramid(self, var_file, refused):
        message = refused(var_file, overrides=Overrides(pyramid=PYRAMID_256))
        assert "lvl_1L says 1-2-3-4" in message

    def test_class_names(self, var_file, refused):
        assert "3 class names were given for 10 classes" in refused(
            var_file, class_names=["a", "b", "c"]
        )


class TestOutput:
    def test_directory_of_something_else_is_never_overwritten(self, var_file, output):
        output.mkdir()
        (output / "thesis.txt").write_text("irreplaceable")
        for overwrite in (False, True):
            with pytest.raises(SdvarError, match="choose another name"):
                convert([var_file], output, overwrite=overwrite)
        assert (output / "thesis.txt").read_text() == "irreplaceable"

    def test_missing_parent(self, var_file, tmp_path):
        with pytest.raises(SdvarError, match="does not exist"):
            convert([var_file], tmp_path / "no" / "where")

    def test_read_only_parent(self, var_file, output, refused, monkeypatch):
        # The superuser may write anywhere, so what the system says is replaced, not provoked.
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)
        assert "is not writable" in refused(var_file)

    def test_full_disk_before_writing(self, var_file, refused, monkeypatch):
        usage = type("usage", (), {"free": 1000})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        assert "no space for" in refused(var_file)

    @pytest.mark.parametrize("storage", ["orbax", "safetensors"])
    def test_full_disk_while_writing(self, var_file, refused, monkeypatch, storage):
        def full(path, *args):
            raise OSError(28, "No space left on device", str(path))

        # Orbax is imported where it is used, the other from the start.
        module = {"orbax": "orbax_store", "safetensors": "store"}[storage]
        monkeypatch.setattr(f"sdvar_jax.checkpoint.{module}.write_{storage}", full)
        assert "no space left on the device" in refused(var_file, storage=storage)

    @pytest.mark.parametrize("storage", ["orbax", "safetensors"])
    def test_nothing_stays_of_an_interrupted_conversion(
        self, var_file, output, monkeypatch, storage
    ):
        weights = to_flax_module._weights

        def interrupted(state, config, dtype):
            made = weights(state, config, dtype)

            def stop():
                assert list(output.parent.iterdir()), "it was being written"
                raise KeyboardInterrupt

            last = list(made.arrays)[-1]
            array = made.arrays[last]
            made.arrays[last] = LazyArray(array.shape, array.dtype, stop)
            return made

        monkeypatch.setattr(to_flax_module, "_weights", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert([var_file], output, storage=storage)
        assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("option", [{"dtype": "int4"}, {"storage": "zip"}, {"parts": ["vae"]}])
def test_unknown_options(var_file, refused, option):
    assert "unknown" in refused(var_file, **option)


def test_nothing_asked_for(var_file, refused):
    assert "nothing to convert" in refused()
    assert "none of the parts asked for: vqvae" in refused(var_file, parts=["vqvae"])


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("delay", [0.0, 0.3, 0.8])
@pytest.mark.parametrize("signal_sent", [signal.SIGINT, signal.SIGTERM])
def test_nothing_stays_of_a_process_told_to_stop(tmp_path, output, signal_sent, delay):
    """A real process, stopped while it writes 300 MB."""
    from golden_weights import fill_one

    from convert.mapping import buffer_shapes, parameter_shapes
    from sdvar_jax.config import VARConfig

    config = VARConfig.of_depth(12)
    manifest = {**parameter_shapes(config), **buffer_shapes(config)}
    path = tmp_path / "var.safetensors"
    write_safetensors(
        path, {k: LazyArray.of(fill_one(k, shape, manifest)) for k, shape in manifest.items()}
    )
    command = [sys.executable, "-m", "convert", str(path), "--output", str(output)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not any(output.parent.iterdir()):
        time.sleep(0.01)
    time.sleep(delay)
    process.send_signal(signal_sent)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert list(output.parent.iterdir()) == []
