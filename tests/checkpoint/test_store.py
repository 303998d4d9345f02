"""A checkpoint gives back what was saved, says what it holds, and is complete or not there."""

import dataclasses
import json
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sdvar_jax.checkpoint import (
    CheckpointInfo,
    PartWeights,
    Source,
    load_checkpoint,
    load_weights,
    read_info,
    save_checkpoint,
)
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.checkpoint.safetensors_file import read_safetensors, write_safetensors
from sdvar_jax.config import BFLOAT16, DTypePolicy
from sdvar_jax.errors import SdvarError

STORAGES = ["orbax", "safetensors"]
CLASSES = tuple(f"class {i}" for i in range(10))


@pytest.fixture(params=STORAGES)
def storage(request):
    return request.param


@pytest.fixture
def saved(tmp_path, var, storage):
    save_checkpoint(tmp_path / "c", var=var, storage=storage)
    return tmp_path / "c"


class TestRoundTrip:
    def test_of_a_bundle(self, tmp_path, var, vqvae, draft, storage):
        sources = (Source("var.pth", "ab" * 32, 17),)
        info = save_checkpoint(
            tmp_path / "c",
            var=var,
            vqvae=vqvae,
            draft=draft,
            class_names=CLASSES,
            sources=sources,
            storage=storage,
        )
        assert read_info(tmp_path / "c") == info
        assert info.class_names == CLASSES
        assert info.sources == sources
        assert info.parts["var"].parameters == sum(
            leaf.size for leaf in jax.tree.leaves(nnx.state(var))
        )
        loaded = load_checkpoint(tmp_path / "c")
        assert loaded.info == info
        for name, model in (("var", var), ("vqvae", vqvae), ("draft", draft)):
            back = getattr(loaded, name)
            assert back.config == model.config
            chex.assert_trees_all_equal(nnx.state(back), nnx.state(model))

    def test_parts_can_be_chosen(self, tmp_path, var, vqvae):
        save_checkpoint(tmp_path / "c", var=var, vqvae=vqvae, storage="safetensors")
        loaded = load_checkpoint(tmp_path / "c", parts=["vqvae"])
        assert loaded.var is None
        assert loaded.vqvae is not None
        assert loaded.draft is None

    def test_in_another_dtype(self, saved, var):
        loaded = load_checkpoint(saved, BFLOAT16).var
        assert loaded.dtypes == BFLOAT16
        kernel = loaded.head_kernel[...]
        chex.assert_trees_all_equal(kernel, var.head_kernel[...].astype(jnp.bfloat16))

    def test_comes_back_in_the_dtype_it_is_stored_in(self, tmp_path, var, storage):
        half = PartWeights(
            var.config,
            {
                path: array.cast(np.dtype(np.float16))
                for path, array in PartWeights.of(var).arrays.items()
            },
        )
        save_checkpoint(tmp_path / "c", var=half, storage=storage)
        assert read_info(tmp_path / "c").parts["var"].dtype == "float16"
        loaded = load_checkpoint(tmp_path / "c").var
        assert loaded.dtypes == DTypePolicy.of("float16")
        assert loaded.head_kernel[...].dtype == jnp.float16

    def test_straight_to_many_devices(self, saved, var):
        mesh = jax.make_mesh((8,), ("model",), axis_types=(AxisType.Auto,))
        columns = NamedSharding(mesh, PartitionSpec(None, "model"))
        everywhere = NamedSharding(mesh, PartitionSpec())

        def sharding(path, leaf):
            return columns if path == "var.head_kernel" else everywhere

        loaded = load_checkpoint(saved, sharding=sharding).var
        assert loaded.head_kernel[...].sharding == columns
        assert loaded.head_bias[...].sharding == everywhere
        chex.assert_trees_all_equal(
            jax.device_get(nnx.state(loaded)), jax.device_get(nnx.state(var))
        )

    def test_weights_are_read_when_needed(self, saved, var):
        weights = load_weights(saved, "var")
        assert weights.config == var.config
        chex.assert_trees_all_equal(
            weights.arrays["head_kernel"].read(), np.asarray(var.head_kernel[...])
        )

    def test_progress_counts_every_byte(self, tmp_path, var, storage):
        written, read = [], []
        info = save_checkpoint(tmp_path / "c", var=var, storage=storage, progress=written.append)
        load_checkpoint(tmp_path / "c", progress=read.append)
        assert sum(written) == sum(read) == info.parts["var"].size

    def test_orbax_weights_are_plain_nested_dicts(self, tmp_path, var):
        save_checkpoint(tmp_path / "c", var=var)
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.metadata(tmp_path / "c" / "var").item_metadata.tree
        assert tree["blocks"]["1"]["attn"]["qkv_kernel"].shape == (128, 384)

    def test_large_models_are_written_and_read_in_batches(self, tmp_path, var, monkeypatch):
        monkeypatch.setattr("sdvar_jax.checkpoint.orbax_store._BATCH_BYTES", 200_000)
        batches = []
        save_checkpoint(tmp_path / "c", var=var, progress=batches.append)
        assert len(batches) > 5
        weights = load_weights(tmp_path / "c", "var")
        for path, array in PartWeights.of(var).arrays.items():
            np.testing.assert_array_equal(weights.arrays[path].read(), array.read())


class TestInt8:
    """Matrices of a VAR in 8 bits, in safetensors storage."""

    @pytest.fixture
    def small(self, tmp_path, var):
        rounded = PartWeights.of(var).rounded_to_int8(others="bfloat16")
        save_checkpoint(tmp_path / "small", var=rounded, storage="safetensors")
        return tmp_path / "small"

    def test_beside_models_in_floats(self, tmp_path, var, vqvae, draft):
        rounded = PartWeights.of(var).rounded_to_int8()
        info = save_checkpoint(
            tmp_path / "c",
            var=rounded,
            vqvae=PartWeights.of(vqvae).cast("bfloat16"),
            draft=draft,
            storage="safetensors",
        )
        assert read_info(tmp_path / "c") == info
        told = {name: part.dtype for name, part in info.parts.items()}
        assert told == {"var": "int8", "vqvae": "bfloat16", "draft": "float32"}
        loaded = load_checkpoint(tmp_path / "c")
        compute = {name: getattr(loaded, name).dtypes.compute for name in told}
        assert compute == {"var": "float32", "vqvae": "bfloat16", "draft": "float32"}
        read = {path: array.read() for path, array in rounded.arrays.items()}
        for path, array in PartWeights.of(loaded.var).arrays.items():
            np.testing.assert_array_equal(array.read(), read[path])
        chex.assert_trees_all_equal(nnx.state(loaded.draft), nnx.state(draft))

    def test_what_is_no_large_matrix_keeps_its_dtype_or_takes_the_one_given(self, var):
        weights = PartWeights.of(var)
        for others, dtype in ((None, np.float32), ("bfloat16", jnp.bfloat16)):
            stored = weights.rounded_to_int8(others).stored_arrays()
            assert stored["blocks.0.attn.qkv_kernel"].dtype == np.int8
            assert stored["blocks.0.attn.qkv_kernel.scale"].shape == (384,)
            for path in ("head_bias", "class_embed", "word_embed.kernel"):
                assert stored[path].dtype == dtype
                assert f"{path}.scale" not in stored

    def test_in_half_the_bytes_of_bfloat16(self, tmp_path, var, small):
        half = PartWeights.of(var).cast("bfloat16")
        save_checkpoint(tmp_path / "half", var=half, storage="safetensors")
        sizes = [(path / "var.safetensors").stat().st_size for path in (small, tmp_path / "half")]
        assert 0.5 < sizes[0] / sizes[1] < 0.55
        part = read_info(small).parts["var"]
        assert 0 < sizes[0] - part.size < 5000  # the header
        assert part.parameters == read_info(tmp_path / "half").parts["var"].parameters

    def test_near_the_model(self, small, var):
        loaded = load_checkpoint(small).var
        kernel, was = np.asarray(loaded.head_kernel[...]), np.asarray(var.head_kernel[...])
        assert (abs(kernel - was) <= 1.001 / 254 * abs(was).max(0)).all()
        assert (kernel != was).any()

    def test_in_another_dtype(self, small):
        loaded = load_checkpoint(small, BFLOAT16).var
        kernel = load_weights(small, "var").arrays["head_kernel"].read()
        chex.assert_trees_all_equal(loaded.head_kernel[...], jnp.asarray(kernel, jnp.bfloat16))

    def test_stored_again_bit_for_bit(self, tmp_path, small):
        again = load_weights(small, "var")
        save_checkpoint(tmp_path / "again", var=again, storage="safetensors")
        for name in ("var.safetensors", "checkpoint.json"):
            assert (tmp_path / "again" / name).read_bytes() == (small / name).read_bytes()

    def test_a_model_read_back_is_rounded_to_the_same_numbers(self, small):
        stored = load_weights(small, "var").stored_arrays()
        again = PartWeights.of(load_checkpoint(small).var).rounded_to_int8().stored_arrays()
        assert list(again) == list(stored)
        for name, array in stored.items():
            if array.dtype == np.int8:
                np.testing.assert_array_equal(again[name].read(), array.read())

    def test_back_to_floats(self, small):
        weights = load_weights(small, "var").cast("float32")
        assert weights.info().dtype == "float32"
        assert weights.stored_arrays().keys() == weights.arrays.keys()

    def test_progress_counts_every_byte(self, tmp_path, var):
        written, read = [], []
        weights = PartWeights.of(var).rounded_to_int8()
        options = {"storage": "safetensors", "progress": written.append}
        info = save_checkpoint(tmp_path / "c", var=weights, **options)
        load_checkpoint(tmp_path / "c", progress=read.append)
        assert sum(written) == sum(read) == info.parts["var"].size == weights.nbytes

    def test_older_readers_are_told_by_the_format(self, small, saved):
        formats = [json.loads((path / "checkpoint.json").read_text()) for path in (saved, small)]
        assert [told["format_version"] for told in formats] == [1, 2]

    def test_not_with_orbax(self, tmp_path, var, small):
        with pytest.raises(SdvarError, match="cannot be stored as orbax; use the storage safeten"):
            save_checkpoint(tmp_path / "c", var=PartWeights.of(var).rounded_to_int8())
        assert not (tmp_path / "c").exists()
        change(small, storage="orbax")
        with pytest.raises(SdvarError, match="cannot be stored as orbax"):
            read_info(small)

    def test_not_a_vqvae(self, vqvae):
        with pytest.raises(SdvarError, match="a VQVAE cannot be stored in int8"):
            PartWeights.of(vqvae).rounded_to_int8()

    @pytest.mark.parametrize("load", [load_checkpoint, lambda path: load_weights(path, "var")])
    def test_missing_scales_are_named(self, small, load):
        rewrite(small, lambda stored: stored.pop("head_kernel.scale"))
        with pytest.raises(SdvarError, match=r"head_kernel\.scale is missing") as caught:
            load(small)
        assert "\n" not in str(caught.value)

    def test_scales_without_numbers_are_named(self, small):
        rewrite(small, lambda stored: stored.pop("head_kernel"))
        with pytest.raises(
            SdvarError, match=r"1 missing: head_kernel; 1 unexpected: head_kernel\."
        ):
            load_checkpoint(small)

    def test_a_file_of_another_checkpoint(self, tmp_path, small, var):
        save_checkpoint(tmp_path / "floats", var=var, storage="safetensors")
        (tmp_path / "floats" / "var.safetensors").rename(small / "var.safetensors")
        with pytest.raises(SdvarError, match=r"not the file that checkpoint\.json describes.*int8"):
            load_checkpoint(small)


class TestRefusal:
    def test_of_models_that_do_not_belong_together(self, tmp_path, var, vqvae):
        other = PartWeights.of(vqvae)
        config = dataclasses.replace(vqvae.config, vocab_size=32)
        arrays = dict(other.arrays)
        arrays["quantizer.codebook"] = LazyArray.of(np.zeros((32, 8), np.float32))
        with pytest.raises(SdvarError, match="vocab_size 64 and 32"):
            save_checkpoint(tmp_path / "c", var=var, vqvae=PartWeights(config, arrays))
        assert list(tmp_path.iterdir()) == []

    def test_of_too_few_class_names(self, tmp_path, var):
        with pytest.raises(SdvarError, match="2 class names were given for 10 classes"):
            save_checkpoint(tmp_path / "c", var=var, class_names=["a", "b"])

    def test_of_nothing(self, tmp_path):
        with pytest.raises(SdvarError, match="holds one or more of"):
            save_checkpoint(tmp_path / "c")

    def test_of_an_unknown_storage(self, tmp_path, var):
        with pytest.raises(SdvarError, match="unknown storage 'zip'"):
            save_checkpoint(tmp_path / "c", var=var, storage="zip")

    def test_of_a_directory_of_something_else(self, tmp_path, var):
        (tmp_path / "thesis.txt").write_text("irreplaceable")
        with pytest.raises(SdvarError, match="it is something else"):
            save_checkpoint(tmp_path, var=var, overwrite=True)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_of_weights_that_are_no_floats(self, tmp_path, var):
        arrays = dict(PartWeights.of(var).arrays)
        arrays["head_bias"] = LazyArray.of(np.zeros(64, np.int32))
        with pytest.raises(SdvarError, match="int32"):
            save_checkpoint(tmp_path / "c", var=PartWeights(var.config, arrays))


class TestDamage:
    def test_no_directory(self, tmp_path):
        with pytest.raises(SdvarError, match="no checkpoint directory"):
            load_checkpoint(tmp_path / "nothing")

    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(SdvarError, match="is not a checkpoint"):
            load_checkpoint(tmp_path)

    def test_another_format(self, saved):
        change(saved, format_version=99)
        with pytest.raises(SdvarError, match="format 99, this program reads 1"):
            load_checkpoint(saved)

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"format_version": 1}'])
    def test_a_broken_description(self, saved, text):
        (saved / "checkpoint.json").write_text(text)
        with pytest.raises(SdvarError) as caught:
            read_info(saved)
        assert "\n" not in str(caught.value)

    def test_weights_of_another_model(self, saved, var):
        info = read_info(saved)
        wider = dataclasses.replace(var.config, num_classes=20)
        part = dataclasses.replace(info.parts["var"], config=wider)
        change(saved, **CheckpointInfo({"var": part}, storage=info.storage).to_dict())
        with pytest.raises(SdvarError, match=r"mis-shaped: class_embed \[11, 128\]"):
            load_checkpoint(saved)

    def test_missing_weights(self, saved, storage):
        name = "var" if storage == "orbax" else "var.safetensors"
        (saved / name).rename(saved / "elsewhere")
        with pytest.raises(SdvarError) as caught:
            load_checkpoint(saved)
        assert "\n" not in str(caught.value)

    def test_truncated_weights(self, saved, storage):
        largest = max(
            (path for path in saved.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
        )
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
        with pytest.raises(SdvarError, match=r"damaged|truncated") as caught:
            load_checkpoint(saved)
        assert "\n" not in str(caught.value)

    def test_a_part_that_is_not_there(self, saved):
        with pytest.raises(SdvarError, match="holds no draft; it holds var"):
            load_weights(saved, "draft")


def test_orbax_is_imported_only_where_it_is_used():
    program = "import sys, sdvar_jax.checkpoint.store; sys.exit('orbax.checkpoint' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_stays_of_an_interrupted_save(tmp_path, var, storage):
    arrays = dict(PartWeights.of(var).arrays)

    def stop():
        raise KeyboardInterrupt

    bias = arrays["word_embed.kernel"]
    arrays["word_embed.kernel"] = LazyArray(bias.shape, bias.dtype, stop)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "c", var=PartWeights(var.config, arrays), storage=storage)
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_replaced_stays_until_the_new_one_is_complete(saved, var):
    arrays = dict(PartWeights.of(var).arrays)

    def fail():
        raise ValueError("broken source")

    bias = arrays["head_bias"]
    arrays["head_bias"] = LazyArray(bias.shape, bias.dtype, fail)
    with pytest.raises(ValueError, match="broken source"):
        save_checkpoint(saved, var=PartWeights(var.config, arrays), overwrite=True)
    chex.assert_trees_all_equal(nnx.state(load_checkpoint(saved).var), nnx.state(var))


def rewrite(directory, edit):
    """Takes or changes arrays of the VAR's file."""
    file = directory / "var.safetensors"
    stored = {
        name: LazyArray.of(array.read().copy()) for name, array in read_safetensors(file).items()
    }
    edit(stored)
    write_safetensors(file, stored)


def change(directory, **fields):
    path = directory / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
