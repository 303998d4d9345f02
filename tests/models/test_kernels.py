"""The fused kernels, interpreted on the CPU, against the plain sums they stand for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from sdvar_jax.models.resize import area_matrix, bicubic_matrix, resize_area, resize_bicubic
from sdvar_jax.models.var.kernels.attention import block_of, cached_attention
from sdvar_jax.models.var.kernels.block_causal import block_causal_attention
from sdvar_jax.models.var.kernels.linear import (
    Tiling,
    linear,
    linear_parts,
    multiplies_well,
    padded_rows,
)
from sdvar_jax.models.var.kernels.normalize import residual_normalize
from sdvar_jax.models.vqvae.kernels.group_norm import group_norm
from sdvar_jax.models.vqvae.kernels.residual_convolution import residual_convolution
from sdvar_jax.models.vqvae.kernels.resize import resize, taps_of
from sdvar_jax.runtime import dependent_launch

TOLERANCE = 1e-5


def eight_bits(seed, *shape):
    """An int8 matrix, the scale of its columns, and the floats they stand for."""
    random = np.random.default_rng(seed)
    values = jnp.asarray(random.integers(-127, 128, shape), jnp.int8)
    scale = jnp.asarray(random.uniform(0.5, 1.5, shape[1:]) / 1000, jnp.float32)
    return values, scale, values.astype(jnp.float32) * scale[None]


def lowered_for_a_gpu(function, *arguments):
    """The program for an NVIDIA GPU, as text; newer versions of JAX want to be told of one."""
    traced = functools.partial(jax.jit(function).trace, *arguments)
    try:
        return traced().lower(lowering_platforms=("cuda",)).as_text()
    except RuntimeError as error:
        if "AbstractDevice" not in str(error):
            raise
    gpu = jax.sharding.AbstractDevice("NVIDIA H100 80GB HBM3", 132, "gpu")
    with jax.sharding.use_abstract_mesh(AbstractMesh((1,), ("x",), abstract_device=gpu)):
        return traced().lower(lowering_platforms=("cuda",)).as_text()


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class TestLinear:
    @pytest.mark.parametrize("biased", [False, True])
    @pytest.mark.parametrize("gelu", [False, True])
    def test_is_the_product_with_bias_and_gelu(self, gelu, biased):
        x, kernel = normal(0, 16, 256), normal(1, 256, 128) / 16
        bias = normal(2, 128) if biased else None
        wanted = jnp.matmul(x, kernel, precision="highest") + (bias[None] if biased else 0)
        wanted = jax.nn.gelu(wanted, approximate=True) if gelu else wanted
        got = linear(x, kernel, bias, gelu=gelu, interpret=True)
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE)

    @pytest.mark.parametrize("written", [1, 16, 70])
    def test_writes_the_first_rows_alone(self, written):
        x, kernel, bias = normal(0, 128, 128), normal(1, 128, 64) / 16, normal(2, 64)
        got = linear(x, kernel, bias, written=written, interpret=True)
        np.testing.assert_array_equal(got, linear(x, kernel, bias, interpret=True)[:written])

    def test_more_rows_are_cut_up_too(self):
        x, kernel, bias = normal(0, 192, 128), normal(1, 128, 256) / 16, normal(2, 256)
        wanted = jnp.matmul(x, kernel, precision="highest")
        got = linear(x, kernel, bias, interpret=True)
        np.testing.assert_allclose(got, wanted + bias[None], atol=TOLERANCE)
        got = linear_parts(x, kernel, parts=2, interpret=True)
        np.testing.assert_allclose(got.sum(axis=0), wanted, atol=TOLERANCE)

    @pytest.mark.parametrize("parts", [None, 1, 3])
    def test_parts_add_up_to_the_product(self, parts):
        x, kernel = normal(0, 32, 192), normal(1, 192, 64) / 16
        got = linear_parts(x, kernel, parts=parts, interpret=True)
        assert got.dtype == jnp.float32
        assert parts is None or got.shape[0] == parts
        wanted = jnp.matmul(x, kernel, precision="highest")
        np.testing.assert_allclose(got.sum(axis=0), wanted, atol=TOLERANCE)

    @pytest.mark.parametrize("gelu", [False, True])
    def test_eight_bits_are_the_product_of_the_floats_they_stand_for(self, gelu):
        x, bias, (values, scale, floats) = (
            normal(0, 16, 256),
            normal(2, 128),
            eight_bits(1, 256, 128),
        )
        wanted = linear(x, floats, bias, gelu=gelu, interpret=True)
        got = linear(x, values, bias, scale, gelu=gelu, interpret=True)
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE)

    @pytest.mark.parametrize("parts", [None, 3])
    def test_parts_of_eight_bits_add_up_too(self, parts):
        x, (values, scale, floats) = normal(0, 32, 192), eight_bits(1, 192, 64)
        got = linear_parts(x, values, scale, parts=parts, interpret=True)
        wanted = linear_parts(x, floats, parts=parts, interpret=True)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE)

    def test_the_sum_of_eight_bits_keeps_the_dtype_of_x(self):
        x, (values, scale, floats) = normal(0, 16, 128).astype(jnp.bfloat16), eight_bits(1, 128, 64)
        got = linear(x, values, jnp.zeros(64, jnp.bfloat16), scale, interpret=True)
        assert got.dtype == jnp.bfloat16
        wanted = jnp.matmul(x.astype(jnp.float32), floats, precision="highest")
        np.testing.assert_allclose(got.astype(jnp.float32), wanted, rtol=2**-8, atol=TOLERANCE)

    def test_eight_bits_need_their_scale_and_floats_have_none(self):
        x, bias, (values, scale, floats) = normal(0, 16, 128), normal(2, 64), eight_bits(1, 128, 64)
        with pytest.raises(AssertionError, match="needs its scale"):
            linear(x, values, bias, interpret=True)
        with pytest.raises(AssertionError):
            linear(x, floats, bias, scale, interpret=True)
        with pytest.raises(AssertionError):
            linear_parts(x, values, scale[:32], interpret=True)

    @pytest.mark.parametrize("weights", [jnp.bfloat16, jnp.int8])
    @pytest.mark.parametrize("rows", [16, 64, 128, 512])
    def test_lowers_for_a_gpu_without_one(self, rows, weights):
        x = jax.ShapeDtypeStruct((rows, 1920), jnp.bfloat16)
        kernel = jax.ShapeDtypeStruct((1920, 7680), weights)
        bias = jax.ShapeDtypeStruct((7680,), jnp.bfloat16)
        scale = jax.ShapeDtypeStruct((7680,), jnp.float32) if weights == jnp.int8 else None
        for function, arguments in (
            (functools.partial(linear, gelu=True), (x, kernel, bias, scale)),
            (linear_parts, (x, kernel, scale)),
        ):
            call = next(
                line
                for line in lowered_for_a_gpu(function, *arguments).splitlines()
                if "custom_call" in line
            )
            assert "triton" in call
            # What the kernel is given: nothing has turned the eight bits into floats.
            assert ("1920x7680xi8" in call) == (weights == jnp.int8)

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(AssertionError):
            linear(normal(0, 16, 128), normal(1, 256, 64), normal(2, 64), interpret=True)
        with pytest.raises(AssertionError):
            linear(normal(0, 16, 128), normal(1, 128, 80), normal(2, 80), interpret=True)

    @pytest.mark.parametrize(
        ("rows", "padded"), [(1, 16), (16, 16), (18, 32), (72, 128), (129, 192), (338, 384)]
    )
    def test_rows_are_padded_to_whole_tiles(self, rows, padded):
        assert padded_rows(rows) == padded

    @pytest.mark.parametrize(
        ("depth", "rows"), [(16, 16), (20, 64), (24, 128), (30, 16), (36, 128)]
    )
    def test_the_official_sizes_are_cut_into_a_program_a_multiprocessor_at_most(self, depth, rows):
        width = 64 * depth
        for wide in (width, 4 * width):
            tiling = Tiling.of_parts(wide, width, rows)
            parts = tiling.parts(wide, width, rows)
            assert wide % (tiling.block_k * parts) == 0
            assert 60 <= parts * width // tiling.block_n <= 132

    @pytest.mark.parametrize("rows", [256, 512])
    def test_parts_of_more_rows_are_two_rounds_of_programs_at_most(self, rows):
        for wide in (1024, 4096):
            tiling = Tiling.of_parts(wide, 1024, rows)
            programs = rows // tiling.block_m * 1024 // tiling.block_n
            parts = tiling.parts(wide, 1024, rows)
            assert 60 <= parts * programs <= 264
            assert wide // parts >= 512

    def test_small_matrices_are_multiplied_here_with_more_rows(self):
        assert multiplies_well(128, 1920 * 7680)
        assert not multiplies_well(129, 1920 * 7680)
        assert multiplies_well(512, 1024 * 4096)
        assert not multiplies_well(513, 64 * 64)


# Tiles small enough for several of them.
causal_in_small_tiles = functools.partial(block_causal_attention, block_q=16, block_k=16)


@pytest.mark.parametrize("attention", [cached_attention, causal_in_small_tiles], ids=["one", "two"])
class TestAttention:
    HEADS, HEAD_DIM, TOTAL = 2, 16, 96

    def reference(self, qkv, biases, scale_mul, limits, keys, values, rows, offset):
        length = len(limits)
        bias = jnp.concatenate([biases[0], jnp.zeros_like(biases[0]), biases[1]])
        parts = (qkv + bias[None])[: rows * length]
        parts = parts.reshape(rows, length, 3, self.HEADS, self.HEAD_DIM)
        q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
        scale = jnp.full(self.HEADS, 0.25 * self.HEAD_DIM**-0.5)
        if scale_mul is not None:
            q, k = (x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
            scale = jnp.minimum(jnp.exp(scale_mul), 100.0)
        keys = keys.at[:rows, offset : offset + length].set(k)
        values = values.at[:rows, offset : offset + length].set(v)
        scores = jnp.einsum(
            "bqhd,bkhd->bhqk",
            q * scale[None, None, :, None],
            keys[:rows, : offset + length],
            precision="highest",
        )
        seen = np.arange(offset + length)[None] < offset + np.asarray(limits)[:, None]
        weights = jax.nn.softmax(jnp.where(seen[None, None], scores, -jnp.inf), axis=-1)
        out = jnp.einsum(
            "bhqk,bkhd->bqhd", weights, values[:rows, : offset + length], precision="highest"
        )
        return out.reshape(rows * length, -1), keys, values

    @pytest.mark.parametrize("normalized", [True, False])
    @pytest.mark.parametrize(
        ("rows", "offset", "limits"),
        [
            (2, 0, [1]),
            (2, 1, [4] * 4),
            (1, 5, [9] * 9),
            (2, 14, [4] * 4 + [20] * 16),
            (2, 0, [1, 5, 5, 5, 5, *[70] * 65]),
        ],
    )
    def test_attends_over_the_prefix_and_the_window_and_fills_the_cache(
        self, attention, rows, offset, limits, normalized
    ):
        width = self.HEADS * self.HEAD_DIM
        padded = padded_rows(rows * len(limits))
        qkv = normal(0, padded, 3 * width)
        biases = normal(3, 2, width)
        # One head's beyond what it may be.
        scale_mul = jnp.asarray([0.5, 7.0]) if normalized else None
        # One row more than the window runs: that of a dropped unconditional half.
        keys = normal(1, rows + 1, self.TOTAL, self.HEADS, self.HEAD_DIM)
        values = normal(2, *keys.shape)
        got = attention(
            qkv,
            *biases,
            scale_mul,
            jnp.asarray(limits, jnp.int32),
            keys,
            values,
            rows=rows,
            offset=offset,
            interpret=True,
        )
        wanted = self.reference(qkv, biases, scale_mul, limits, keys, values, rows, offset)
        tolerance = 4 * TOLERANCE if normalized else TOLERANCE  # a scale of 100 sharpens errors
        np.testing.assert_allclose(got[0][: rows * len(limits)], wanted[0], atol=tolerance)
        # The first window makes the cache anew, and what it does not write is never read.
        known = np.s_[:rows, : len(limits)] if offset == 0 else np.s_[:]
        np.testing.assert_allclose(got[1][known], wanted[1][known], atol=TOLERANCE)
        np.testing.assert_array_equal(got[2][known], wanted[2][known])

    def test_what_lies_behind_the_window_in_the_cache_is_never_read(self, attention):
        width = self.HEADS * self.HEAD_DIM
        qkv, biases, limits = normal(0, 16, 3 * width), normal(1, 2, width), jnp.full(4, 4)
        shape = (1, self.TOTAL, self.HEADS, self.HEAD_DIM)
        clean, dirty = jnp.zeros(shape), jnp.zeros(shape).at[:, 5:].set(jnp.nan)
        outs = [
            attention(qkv, *biases, jnp.ones(2), limits, c, c, rows=1, offset=1, interpret=True)[0][
                :4
            ]
            for c in (clean, dirty)
        ]
        np.testing.assert_array_equal(*outs)


@pytest.mark.parametrize(("length", "tile"), [(1, 16), (17, 32), (64, 64), (256, 64)])
def test_tiles_of_attention_are_powers_of_two(length, tile):
    assert block_of(length, 64) == tile


class TestResidualNormalize:
    ROWS, LENGTH, WIDTH, PADDED, EPS = 3, 4, 192, 16, 1e-6

    def reference(self, x, branch, bias, modulation, gamma, following, scale):
        image = jnp.minimum(jnp.arange(self.PADDED) // self.LENGTH, self.ROWS - 1)
        if branch is not None:
            branch = branch.sum(axis=0) if branch.ndim == 3 else branch
            x = x + (branch + bias[None]) * modulation[image, gamma]
        centered = x - x.mean(axis=-1, keepdims=True)
        h = centered * jax.lax.rsqrt((centered**2).mean(axis=-1, keepdims=True) + self.EPS)
        return x, h * (following[image, scale] + 1) + following[image, scale + 2]

    @pytest.mark.parametrize("parts", [None, 1, 5])
    def test_adds_the_branch_and_normalises(self, parts):
        shape = (self.PADDED, self.WIDTH) if parts is None else (parts, self.PADDED, self.WIDTH)
        x, branch, bias = normal(0, self.PADDED, self.WIDTH), normal(1, *shape), normal(2, 192)
        modulation, following = (normal(seed, self.ROWS, 6, self.WIDTH) for seed in (3, 4))
        got = residual_normalize(
            x,
            modulation,
            length=self.LENGTH,
            eps=self.EPS,
            branch=branch,
            bias=bias,
            gamma=1,
            scale=2,
            next_modulation=following,
            interpret=True,
        )
        wanted = self.reference(x, branch, bias, modulation, 1, following, 2)
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=TOLERANCE)

    def test_without_a_branch_it_normalises_alone(self):
        x, modulation = normal(0, self.PADDED, self.WIDTH), normal(1, self.ROWS, 6, self.WIDTH)
        total, h = residual_normalize(
            x, modulation, length=self.LENGTH, eps=self.EPS, scale=3, interpret=True
        )
        np.testing.assert_array_equal(total, x)
        _, wanted = self.reference(x, None, None, modulation, 0, modulation, 3)
        np.testing.assert_allclose(h, wanted, atol=TOLERANCE)

    def test_after_the_last_block_it_only_adds(self):
        x, branch, bias = (normal(seed, 16, self.WIDTH) for seed in (0, 1, 2))
        modulation = normal(3, self.ROWS, 6, self.WIDTH)
        total, h = residual_normalize(
            x,
            modulation,
            length=self.LENGTH,
            eps=self.EPS,
            branch=branch,
            bias=bias[0],
            gamma=0,
            interpret=True,
        )
        wanted, _ = self.reference(x, branch, bias[0], modulation, 0, modulation, 2)
        np.testing.assert_allclose(total, wanted, atol=TOLERANCE)
        assert h is None


class TestGroupNorm:
    @pytest.mark.parametrize("silu", [False, True])
    @pytest.mark.parametrize(
        "shape",
        [(2, 16, 16, 160), (1, 8, 8, 64), (1, 6, 6, 32), (2, 40, 40, 320), (2, 129, 130, 64)],
        ids=str,
    )
    def test_is_the_normalisation_and_the_silu_behind_it(self, shape, silu):
        channels = shape[-1]
        x, scale, bias = 2 * normal(0, *shape) + 1, normal(1, channels), normal(2, channels)
        groups = np.asarray(x, np.float64).reshape(shape[0], -1, 32, channels // 32)
        mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
        wanted = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(shape)
        wanted = wanted * np.asarray(scale) + np.asarray(bias)
        wanted = wanted / (1 + np.exp(-wanted)) if silu else wanted
        got = group_norm(x, scale, bias, groups=32, eps=1e-6, silu=silu, interpret=True)
        np.testing.assert_allclose(got, wanted, atol=TOLERANCE)

    def test_16_bits_are_summed_in_32(self):
        x = (normal(0, 1, 64, 64, 32) + 3).astype(jnp.bfloat16)
        ones, zeros = jnp.ones(32), jnp.zeros(32)
        got = group_norm(x, ones, zeros, groups=32, eps=1e-6, silu=False, interpret=True)
        assert got.dtype == jnp.bfloat16
        exact = np.asarray(x, np.float32)
        wanted = (exact - exact.mean((1, 2))) / exact.std((1, 2))
        np.testing.assert_allclose(got.astype(jnp.float32), wanted, atol=0.02)

    def test_channels_that_the_programs_do_not_divide_are_refused(self):
        x = jnp.zeros((1, 4, 4, 48))
        with pytest.raises(AssertionError):
            group_norm(x, x[0, 0, 0], x[0, 0, 0], groups=16, eps=1e-6, silu=False, interpret=True)


@pytest.mark.parametrize(("side", "kernels"), [(8, 2), (128, 3)])
@pytest.mark.parametrize("available", [True, False])
def test_kernels_let_the_next_one_start_where_the_device_can(available, side, kernels, monkeypatch):
    monkeypatch.setattr(dependent_launch, "_available", lambda: available)
    jax.clear_caches()

    def norm(x):
        return group_norm(x, x[0, 0, 0], x[0, 0, 0], groups=32, eps=1e-6, silu=True)

    program = lowered_for_a_gpu(norm, jnp.zeros((1, side, side, 32)))
    # Of all kernels, in what is left to Triton.
    assert program.count("griddepcontrol.launch_dependents") == kernels * available


class TestResize:
    @pytest.mark.parametrize("side", [1, 2, 3, 5, 10, 13])
    def test_is_the_resize_by_matrices(self, side):
        small, large = normal(0, 2, side, side, 16), normal(1, 2, 16, 16, 16)
        got = resize(small, bicubic_matrix(side, 16), interpret=True)
        np.testing.assert_allclose(got, resize_bicubic(small, 16), atol=TOLERANCE)
        got = resize(large, area_matrix(16, side), interpret=True)
        np.testing.assert_allclose(got, resize_area(large, side), atol=TOLERANCE)

    @pytest.mark.parametrize("matrix", [bicubic_matrix(5, 16), area_matrix(16, 5)])
    def test_taps_are_what_a_matrix_is_made_of(self, matrix):
        places, values = taps_of(matrix)
        assert places.shape == values.shape == (len(matrix), 4)
        whole = np.zeros_like(matrix)
        np.add.at(whole, (np.arange(len(matrix))[:, None], places), values)
        np.testing.assert_array_equal(whole, matrix)


@pytest.mark.parametrize("side", [4, 16, 20])
def test_a_residual_convolution_is_the_plain_one_and_its_input(side):
    maps, filters = normal(0, 2, side, side, 16), normal(1, 3, 3, 16, 16) / 12
    bias = normal(2, 16)
    plain = jax.lax.conv_general_dilated(
        maps,
        filters,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    got = residual_convolution(maps, filters, bias, ratio=0.25, interpret=True)
    wanted = 0.75 * maps + 0.25 * (plain + bias[None, None, None])
    np.testing.assert_allclose(got, wanted, atol=TOLERANCE)
