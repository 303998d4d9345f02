"""Block weights in eight bits: how they are rounded, and that models run with them as they are."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_models import (
    hidden_over_windows,
    small_draft,
    small_model,
    small_target,
    small_var_config,
    small_vqvae,
)

from sdvar_jax.config import BFLOAT16, FLOAT32, DTypePolicy, ScalePyramid
from sdvar_jax.decoding import Handoff, TargetOnly
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.errors import SdvarError
from sdvar_jax.models.kernels import INTERPRETED, REFERENCE, SCANNED
from sdvar_jax.models.var.kernels.choice import prepared, with_kernels
from sdvar_jax.models.var.products import Kernel, product
from sdvar_jax.models.var.quantized import (
    has_int8_weights,
    multiplied_out,
    rounded,
    with_int8_weights,
    with_weights,
)
from sdvar_jax.pipeline import Pipeline

PYRAMID = ScalePyramid((1, 2, 3, 4, 6))
MATRICES = ("attn.qkv_kernel", "attn.proj.kernel", "ffn.fc1.kernel", "ffn.fc2.kernel")


@pytest.fixture(scope="module")
def model():
    return small_model(small_var_config(width=64, depth=2, heads=4, pyramid=PYRAMID))


def with_matrices(model, change):
    """A model whose matrices are changed, all in floats."""
    copy = nnx.merge(*nnx.split(model))
    for block in copy.blocks:
        attn, ffn = block.attn, block.ffn
        attn.qkv_kernel = nnx.Param(change(attn.qkv_kernel[...]))
        for layer in (attn.proj, ffn.fc1, ffn.fc2):
            layer.kernel = nnx.Param(change(layer.kernel[...]))
    return copy


def leaves(model):
    """Dotted path -> array."""
    return {
        ".".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(nnx.state(model))
    }


class TestRounded:
    @given(arrays(np.float32, (4, 3), elements=st.floats(-1e3, 1e3, width=32)))
    @settings(max_examples=100, deadline=None)
    def test_what_was_multiplied_out_rounds_to_the_same_again(self, values):
        kernel = rounded(jnp.asarray(values))
        again = rounded(multiplied_out(kernel))
        np.testing.assert_array_equal(again.values, kernel.values)
        np.testing.assert_allclose(again.scale, kernel.scale, rtol=1e-6)

    @given(arrays(np.float32, (4, 3), elements=st.floats(-1e3, 1e3, width=32)))
    @settings(max_examples=100, deadline=None)
    def test_no_value_moves_by_more_than_half_a_step_of_its_column(self, values):
        kernel = rounded(jnp.asarray(values))
        moved = np.abs(np.asarray(multiplied_out(kernel)) - values)
        assert (moved <= 0.5001 * np.asarray(kernel.scale)[None]).all()

    def test_the_largest_of_each_column_is_127_and_a_column_of_zeros_stays(self):
        values, scale = rounded(jnp.asarray([[1.0, -0.02, 0.0], [-2.0, 0.01, 0.0]]))
        assert (values.dtype, scale.dtype) == (jnp.int8, jnp.float32)
        np.testing.assert_array_equal(values, [[64, -127, 0], [-127, 64, 0]])
        np.testing.assert_allclose(scale, [2 / 127, 0.02 / 127, 1.0], rtol=1e-6)


class TestProduct:
    @pytest.mark.parametrize("dtypes", [FLOAT32, BFLOAT16, DTypePolicy.of("float16")])
    def test_is_that_with_the_values_multiplied_out(self, dtypes):
        random = np.random.default_rng(0)
        x = jnp.asarray(random.standard_normal((2, 3, 64)), dtypes.compute_dtype)
        kernel = rounded(jnp.asarray(random.standard_normal((64, 32)), jnp.float32))
        got = product(x, kernel, dtypes)
        assert got.dtype == dtypes.compute_dtype
        exact = np.asarray(x, np.float64) @ np.asarray(multiplied_out(kernel), np.float64)
        epsilon = float(jnp.finfo(dtypes.compute_dtype).eps)
        np.testing.assert_allclose(got.astype(jnp.float32), exact, rtol=epsilon, atol=4e-5)

    def test_sums_that_float16_cannot_hold_are_scaled_first(self):
        x = jnp.full((1, 4096), 8.0, jnp.float16)
        kernel = Kernel(jnp.full((4096, 1), 127, jnp.int8), jnp.full((1,), 1e-4, jnp.float32))
        got = product(x, kernel, DTypePolicy.of("float16"))
        np.testing.assert_allclose(got, [[8 * 4096 * 0.0127]], rtol=1e-3)


class TestModel:
    def test_the_four_matrices_of_a_block_alone_become_int8(self, model):
        own, eight = leaves(model), leaves(with_int8_weights(model))
        matrices = [f"blocks.{i}.{name}" for i in range(2) for name in MATRICES]
        scales = {f"{path}_scale" for path in matrices}
        assert set(eight) == set(own) | scales
        assert {p for p, array in eight.items() if array.dtype == jnp.int8} == set(matrices)
        for path in set(own) - set(matrices):
            assert eight[path] is own[path]

    def test_the_users_model_stays_as_it_is_and_twice_is_once(self, model):
        eight = with_int8_weights(model)
        assert (has_int8_weights(model), has_int8_weights(eight)) == (False, True)
        assert with_int8_weights(eight) is eight
        assert with_weights("float", model) is model
        assert has_int8_weights(prepared(with_kernels(eight, SCANNED)))

    def test_they_can_be_rounded_inside_a_compiled_function(self, model):
        graph, state = nnx.split(model)
        made = jax.jit(lambda state: nnx.state(with_int8_weights(nnx.merge(graph, state))))(state)
        wanted = nnx.state(with_int8_weights(model))
        for got, other in zip(jax.tree.leaves(made), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(got, other, rtol=1e-6)

    @pytest.mark.parametrize("kernels", [REFERENCE, SCANNED, INTERPRETED])
    @pytest.mark.parametrize(
        "windows", [[(0, 1), (1, 3), (3, 5)], [(0, 5)]], ids=["few rows", "many rows"]
    )
    def test_runs_as_the_model_of_the_floats_they_stand_for(self, model, kernels, windows):
        floats = with_matrices(model, lambda values: multiplied_out(rounded(values)))
        wanted, _ = hidden_over_windows(floats, windows)
        rounded_model = prepared(with_kernels(with_int8_weights(model), kernels))
        got, _ = hidden_over_windows(rounded_model, windows)
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-5)
        (own, *_), _ = hidden_over_windows(model, windows)
        off = np.abs(np.asarray(own) - np.asarray(wanted[0])).max()
        assert off > 1e-3  # the rounding itself is far larger

    def test_unknown_weights_are_refused(self, model):
        with pytest.raises(SdvarError, match="unknown weights 'int4'; use one of float, int8"):
            with_weights("int4", model)


@pytest.fixture(scope="module")
def models():
    return small_target(), small_vqvae(), small_draft()


@pytest.fixture(scope="module")
def eight(models):
    return Pipeline(*models, weights="int8")


class TestPipeline:
    DECODERS = (TargetOnly(), Speculative(gamma=2), Handoff(2, "target-draft"))

    @staticmethod
    def tokens(pipeline, decoder):
        return np.concatenate(pipeline.sample([1, 2, 3], decoder=decoder).tokens, axis=1)

    def test_every_decoder_draws_what_the_floats_they_stand_for_draw(self, models, eight):
        def change(values):
            return multiplied_out(rounded(values))

        target, vqvae, draft = models
        floats = Pipeline(with_matrices(target, change), vqvae, with_matrices(draft, change))
        for decoder in self.DECODERS:
            np.testing.assert_array_equal(
                self.tokens(eight, decoder), self.tokens(floats, decoder), err_msg=decoder.name
            )

    def test_exact_speculation_draws_the_targets_own_picture(self, eight):
        target, speculative, handoff = (self.tokens(eight, each) for each in self.DECODERS)
        np.testing.assert_array_equal(speculative, target)
        assert (handoff != target).any()

    @pytest.mark.parametrize("kernels", [REFERENCE, SCANNED])
    def test_programs_are_given_the_eight_bits(self, models, kernels):
        from benchmarks.programs import compile_program, lower_tokens
        from sdvar_jax.decoding import make_request
        from sdvar_jax.sampling import SamplingConfig

        config, sizes = models[0].config, []
        for weights in ("float", "int8"):
            pipeline = Pipeline(*models, kernels=kernels, weights=weights)
            request = make_request(np.asarray([1]), 0, SamplingConfig(), config.pyramid)
            arguments = (pipeline, TargetOnly(), SamplingConfig(), request)
            program = compile_program(functools.partial(lower_tokens, *arguments))
            sizes.append(program.executable.memory_analysis().argument_size_in_bytes)
        given = jax.tree.leaves(program.executable.args_info)
        blocks = 4 * config.width**2 + 2 * config.width * config.mlp_width
        assert (
            sum(math.prod(a.shape) for a in given if a.dtype == jnp.int8) == config.depth * blocks
        )
        columns = 5 * config.width + config.mlp_width
        # Three bytes less a weight, four more a column; buffers may be padded.
        saved = config.depth * (3 * blocks - 4 * columns)
        assert sizes[0] - sizes[1] == pytest.approx(saved, rel=0.05)
