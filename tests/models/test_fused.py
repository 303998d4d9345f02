"""The fast paths of the transformer give what the reference path gives."""

import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_models import (
    hidden_over_windows,
    small_draft,
    small_model,
    small_target,
    small_var_config,
    small_vqvae,
)

import sdvar_jax.models.var.fused as fused_path
from sdvar_jax.config import BFLOAT16, FLOAT32, DTypePolicy, ScalePyramid, preset
from sdvar_jax.decoding import Handoff, TargetOnly
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.errors import SdvarError
from sdvar_jax.models import KVCache, block_causal_mask
from sdvar_jax.models.kernels import AUTO, FUSED, INTERPRETED, REFERENCE, SCANNED
from sdvar_jax.models.var.fused import fused_logits, visible_limits
from sdvar_jax.models.var.kernels import choice, linear
from sdvar_jax.models.var.kernels.choice import choose_kernels, prepared, supported, with_kernels
from sdvar_jax.pipeline import Pipeline, choose_filter

PYRAMID = ScalePyramid((1, 2, 3, 4, 6))


def config(**options):
    return small_var_config(width=64, depth=2, heads=4, pyramid=PYRAMID, **options)


@pytest.mark.parametrize("options", [{}, {"attn_l2_norm": False}, {"shared_aln": True}])
@pytest.mark.parametrize(
    "windows",
    [[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], [(0, 3), (3, 5)], [(0, 5)], [(0, 2), (2, 4)]],
    ids=["scale by scale", "two windows", "one window", "not all scales"],
)
def test_windows_over_the_cache(windows, options):
    model = small_model(config(**options))
    wanted, wanted_cache = hidden_over_windows(model, windows)
    got, cache = hidden_over_windows(with_kernels(model, INTERPRETED), windows)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)
    for one, other in zip(jax.tree.leaves(cache), jax.tree.leaves(wanted_cache), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_long_windows_over_several_scales_leave_tiles_of_keys_out(monkeypatch):
    monkeypatch.setattr(fused_path, "_CAUSAL_LENGTH", 4)
    model, windows = small_model(config(mlp_ratio=2.0)), [(0, 3), (3, 5)]
    wanted, _ = hidden_over_windows(model, windows)
    got, _ = hidden_over_windows(with_kernels(model, INTERPRETED), windows)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_many_rows_are_the_librarys(monkeypatch):
    # A shape of its own: what was traced for others is not traced again.
    model = small_model(config(mlp_ratio=3.0))
    monkeypatch.setattr(linear, "SMALL", 0)
    assert not linear.multiplies_well(3 * PYRAMID.total_length, 64 * 192)
    wanted, _ = hidden_over_windows(model, [(0, 5)])
    got, _ = hidden_over_windows(with_kernels(model, INTERPRETED), [(0, 5)])
    np.testing.assert_allclose(got[0], wanted[0], atol=2e-5)


def test_the_modulations_are_the_references():
    for options in ({}, {"shared_aln": True}):
        model = small_model(config(**options))
        labels = jnp.asarray([1, 0, 2])
        wanted = model.modulations(labels)
        got = with_kernels(model, INTERPRETED).modulations(labels)
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("vocab", [128, 100])
@pytest.mark.parametrize("length", [1, 300])
def test_the_head_takes_any_vocabulary_and_length(vocab, length):
    random = np.random.default_rng(0)
    h, kernel, bias = (
        jnp.asarray(random.standard_normal(shape), jnp.float32)
        for shape in ((2, length, 64), (64, vocab), (vocab,))
    )
    logits = fused_logits(h, kernel, bias, FLOAT32, interpret=True)
    wanted = jnp.matmul(h, kernel, precision="highest") + bias[None, None]
    np.testing.assert_allclose(logits, wanted, atol=1e-4)


def test_the_head_rounds_its_operands_and_nothing_else():
    random = np.random.default_rng(0)
    h, kernel = (
        jnp.asarray(random.standard_normal(shape), jnp.bfloat16).astype(jnp.float32)
        for shape in ((2, 3, 64), (64, 128))
    )
    bias = jnp.zeros((128,), jnp.bfloat16)
    logits = fused_logits(h, kernel.astype(jnp.bfloat16), bias, BFLOAT16, interpret=True)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, jnp.matmul(h, kernel, precision="highest"), atol=1e-4)


def test_masks_that_are_not_block_causal_take_the_reference_path():
    mask = block_causal_mask(PYRAMID, 2, 3)
    mask[:, 1] = False
    assert visible_limits(mask, PYRAMID.offsets[2], 9) is None
    model = with_kernels(small_model(config()), INTERPRETED)
    modulations, cache = model.modulations(jnp.asarray([1])), KVCache.make(config(), 1, jnp.float32)
    x = jnp.ones((1, 9, 64))
    got, _ = model.hidden(x, modulations, cache, 5, mask)
    wanted, _ = with_kernels(model, REFERENCE).hidden(x, modulations, cache, 5, mask)
    np.testing.assert_array_equal(got, wanted)


def test_limits_tell_what_a_position_sees_of_its_window():
    mask = block_causal_mask(PYRAMID, 1, 3)
    np.testing.assert_array_equal(visible_limits(mask, 1, 13), [4] * 4 + [13] * 9)
    np.testing.assert_array_equal(visible_limits(None, 5, 9), [9] * 9)


@pytest.mark.parametrize("kernels", [REFERENCE, INTERPRETED])
def test_more_blocks_are_more_calls_of_the_same_operations(kernels):
    def operations(depth):
        shapes = small_var_config(width=64, depth=depth, heads=4, pyramid=PYRAMID)
        model = with_kernels(small_model(shapes), kernels)
        modulations, cache = model.modulations(jnp.asarray([1])), model.make_cache(1)

        def window(x):
            return model.hidden(x, modulations, cache, PYRAMID.offsets[2])[0]

        text = jax.jit(window).lower(jnp.ones((1, 9, 64))).as_text()
        # The weights are constants here.
        return len(re.findall(r"stablehlo\.(?!constant)", text))

    assert operations(2) == operations(4)


class TestScanned:
    @pytest.mark.parametrize("options", [{}, {"attn_l2_norm": False}, {"shared_aln": True}])
    @pytest.mark.parametrize("windows", [[(0, 1), (1, 3), (3, 5)], [(0, 5)], [(0, 3)]])
    def test_windows_over_the_cache(self, windows, options):
        model = small_model(config(**options))
        wanted, _ = hidden_over_windows(model, windows)
        stacked = prepared(with_kernels(model, SCANNED))
        got, cache = hidden_over_windows(stacked, windows)
        assert cache.keys[0].shape == (2, 3, PYRAMID.offsets[windows[-1][1]], 4, 16)
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)

    @pytest.mark.parametrize(
        "decoder", [TargetOnly(), Speculative(gamma=2), Handoff(2, "target-draft")]
    )
    def test_pictures_are_the_references(self, decoder):
        models = small_target(), small_vqvae(), small_draft()
        tokens = [
            np.concatenate(
                Pipeline(*models, kernels=kernels).sample([1, 2], decoder=decoder).tokens, axis=1
            )
            for kernels in (REFERENCE, SCANNED)
        ]
        np.testing.assert_array_equal(*tokens)


class TestChoice:
    def test_a_cpu_loops_over_the_blocks_of_small_models(self):
        assert choose_kernels(AUTO, config(), BFLOAT16) == SCANNED
        assert choose_kernels(AUTO, preset("d16"), BFLOAT16) == REFERENCE
        assert choose_kernels(AUTO, config(), BFLOAT16, devices=8) == REFERENCE
        assert choose_filter(AUTO, REFERENCE) == "sort"
        assert choose_filter(AUTO, FUSED) == "kernel"
        assert choose_filter("search", FUSED) == "search"

    def test_what_cannot_run_is_refused(self):
        with pytest.raises(SdvarError, match="need an NVIDIA GPU, and this is cpu"):
            choose_kernels(FUSED, config(), BFLOAT16)
        with pytest.raises(SdvarError, match="unknown kernels 'fast'"):
            choose_kernels("fast", config(), BFLOAT16)

    def test_without_the_kernels_language_the_reference_runs(self, monkeypatch):
        gpu = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100", compute_capability="9.0")
        monkeypatch.setattr(jax, "devices", lambda: [gpu])
        assert choose_kernels(AUTO, config(), BFLOAT16) == FUSED
        monkeypatch.setattr(choice, "_LANGUAGE", "jax.experimental.pallas.gone")
        assert choose_kernels(AUTO, config(), BFLOAT16) == REFERENCE
        with pytest.raises(SdvarError, match=r"need jax\.experimental\.pallas\.gone, which jax"):
            choose_kernels(FUSED, config(), BFLOAT16)

    @pytest.mark.parametrize(
        ("options", "dtypes", "expected"),
        [
            ({}, BFLOAT16, True),
            ({}, DTypePolicy("float32", "float16"), True),
            ({}, FLOAT32, False),
            ({"width": 96, "heads": 6}, BFLOAT16, False),
            ({"heads": 8}, BFLOAT16, False),
        ],
    )
    def test_shapes_and_dtypes_decide(self, options, dtypes, expected):
        sizes = {"width": 64, "heads": 4, **options}
        assert supported(small_var_config(**sizes), dtypes) is expected

    def test_the_pipeline_keeps_the_users_model_as_it_is(self):
        target = small_target()
        pipeline = Pipeline(target, small_vqvae(), kernels=INTERPRETED)
        assert (target.kernels, pipeline.target.kernels) == (REFERENCE, INTERPRETED)


@pytest.mark.accelerator
def test_on_a_gpu_the_fast_path_agrees_with_the_reference():
    """In bfloat16 both are within rounding of the reference in float32."""
    from benchmarks.random_models import RandomModels
    from sdvar_jax.decoding.request import make_request
    from sdvar_jax.decoding.sequential import decode_scale
    from sdvar_jax.decoding.window import class_modulations
    from sdvar_jax.sampling import SamplingConfig

    if choose_kernels(AUTO, config(), BFLOAT16) != FUSED:
        pytest.skip("needs a GPU that the kernels were tried on")
    models = RandomModels.make("d16", None, BFLOAT16)
    sampling = SamplingConfig()
    f_hats = jax.random.normal(jax.random.key(0), (11, 2, 16, 16, 32))
    outs = {}
    for kernels in (REFERENCE, FUSED):
        pipeline = Pipeline(models.target, models.vqvae, kernels=kernels, filter_method="search")
        compiled_in = pipeline.prepare(TargetOnly(), sampling)
        request = make_request(np.arange(2), 0, sampling, pipeline.target.config.pyramid)

        # One program: op by op, the reference path alone compiles for minutes.
        @nnx.jit
        def all_scales(target, quantizer, compiled_in=compiled_in, request=request):
            modulations = class_modulations(target, request, compiled_in)
            cache = KVCache.make(target.config, 4, jnp.bfloat16)
            made = []
            for scale in range(10):
                logits, _, _, cache = decode_scale(
                    target, quantizer, modulations, f_hats, cache, scale, request, compiled_in
                )
                made.append(logits)
            return made

        outs[kernels] = jax.device_get(all_scales(pipeline.target, models.vqvae.quantizer))
    for one, other in zip(outs[FUSED], outs[REFERENCE], strict=True):
        assert np.linalg.norm(one - other) < 0.05 * np.linalg.norm(other)
