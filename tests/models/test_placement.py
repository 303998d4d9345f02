"""The half of a VQVAE that makes pictures, and where its filters lie."""

import jax
import numpy as np
import pytest
from flax import nnx
from small_models import small_vqvae

from sdvar_jax.checkpoint import abstract_model
from sdvar_jax.config import BFLOAT16, FLOAT32, VQVAEConfig, preset
from sdvar_jax.models.kernels import AUTO, FUSED, INTERPRETED, REFERENCE
from sdvar_jax.models.var.kernels.choice import choose_kernels
from sdvar_jax.models.vqvae.layers import (
    GroupNorm,
    PhasedUpsample,
    ThinConvolution,
    Upsample,
    conv,
)
from sdvar_jax.models.vqvae.placement import (
    decoding_half,
    drawing_part,
    filters_out_first,
    for_one_gpu,
)


@pytest.fixture(scope="module")
def vqvae():
    return small_vqvae()


@pytest.fixture(scope="module")
def f_hat(vqvae):
    side, channels = vqvae.config.pyramid.latent_side, vqvae.config.latent_channels
    return jax.random.normal(jax.random.key(0), (2, side, side, channels))


def leaves(model):
    return jax.tree.leaves(nnx.state(model))


def test_the_half_makes_the_same_pictures_from_the_same_arrays(vqvae, f_hat):
    half = decoding_half(vqvae)
    np.testing.assert_array_equal(half.decode(f_hat), vqvae.decode(f_hat))
    assert len(leaves(half)) < len(leaves(vqvae))
    assert {id(leaf) for leaf in leaves(half)} <= {id(leaf) for leaf in leaves(vqvae)}
    assert not hasattr(half, "encoder")
    assert hasattr(vqvae, "encoder")


def test_the_drawing_part_decodes_without_a_quantizer(vqvae, f_hat):
    half = decoding_half(vqvae)
    part = drawing_part(half)
    np.testing.assert_array_equal(part.decode(f_hat), half.decode(f_hat))
    assert not hasattr(part, "quantizer")
    assert hasattr(half, "quantizer")


def test_the_decoders_filters_lie_by_output_channels_and_mean_the_same(vqvae, f_hat):
    half = decoding_half(vqvae)
    placed = filters_out_first(half)
    for one, other in zip(leaves(placed), leaves(half), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(placed.decode(f_hat), half.decode(f_hat), atol=1e-6)

    def orders(model):
        filters = [leaf for leaf in leaves(model) if leaf.ndim == 4]
        return {leaf.format.layout.major_to_minor for leaf in filters}

    assert orders(placed.decoder) == {(3, 0, 1, 2)}
    assert orders(placed.quantizer) == {(0, 1, 2, 3)}


def test_an_abstract_decoder_is_compiled_for_filters_that_lie_so(vqvae, f_hat):
    def formats(half):
        graph, state = nnx.split(filters_out_first(decoding_half(half)))
        program = jax.jit(lambda state: nnx.merge(graph, state).decode(f_hat))
        of_state, _ = program.lower(state).compile().input_formats
        # What the program does not read has no layout.
        layouts = [leaf.layout for leaf in jax.tree.leaves(of_state)]
        return [None if layout is None else layout.major_to_minor for layout in layouts]

    without_weights = formats(abstract_model(vqvae.config))
    assert (3, 0, 1, 2) in without_weights
    assert without_weights == formats(vqvae)


def norms_run_by(model):
    nodes = (node for _, node in nnx.iter_graph(model))
    return {node.kernels for node in nodes if isinstance(node, GroupNorm)}


@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (1, 1, 1, 4)], ids=str)
def test_phases_double_a_map_as_the_convolution_of_its_copies_does(shape):
    plain = Upsample(shape[-1], FLOAT32, rngs=nnx.Rngs(0))
    plain.conv.bias[...] = jax.random.normal(jax.random.key(1), (shape[-1],))
    x = jax.random.normal(jax.random.key(2), shape)
    np.testing.assert_allclose(PhasedUpsample(plain)(x), plain(x), atol=1e-5)


def test_a_convolution_to_few_channels_is_a_product_of_all_taps():
    convolution = conv(8, 3, 3, FLOAT32, nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (2, 3, 5, 8))
    np.testing.assert_allclose(ThinConvolution(convolution)(x), convolution(x), atol=1e-6)


def test_sums_for_one_gpu_are_as_near_to_the_pictures_of_32_bits(vqvae, f_hat):
    half = decoding_half(small_vqvae(BFLOAT16))
    fused = for_one_gpu(half, INTERPRETED)
    assert norms_run_by(fused) == {INTERPRETED} == {fused.quantizer.kernels}
    assert norms_run_by(half) == {REFERENCE} == {half.quantizer.kernels}
    wanted = vqvae.decode(f_hat)
    off, reference_off = (np.abs(model.decode(f_hat) - wanted).mean() for model in (fused, half))
    assert off < 1.1 * reference_off


def test_32_bits_stay_as_they_are(vqvae, f_hat):
    np.testing.assert_array_equal(
        for_one_gpu(vqvae, INTERPRETED).decode(f_hat), vqvae.decode(f_hat)
    )
    assert norms_run_by(for_one_gpu(vqvae, INTERPRETED)) == {REFERENCE}


@pytest.mark.accelerator
def test_on_a_gpu_pictures_of_16_bits_are_as_near():
    """The kernels themselves, at the published sizes."""
    from benchmarks.random_models import random_model

    if choose_kernels(AUTO, preset("d16"), BFLOAT16) != FUSED:
        pytest.skip("needs a GPU that the kernels were tried on")
    exact = random_model(VQVAEConfig(), FLOAT32)
    half = decoding_half(random_model(VQVAEConfig(), BFLOAT16))
    fast = filters_out_first(for_one_gpu(half))
    assert norms_run_by(fast) == {FUSED}
    f_hat = jax.random.normal(jax.random.key(0), (2, 16, 16, 32))
    wanted, plain, fused = (
        nnx.jit(lambda model, f_hat: model.decode(f_hat))(model, f_hat)
        for model in (exact, half, fast)
    )
    assert 0 < np.abs(fused - wanted).mean() < 1.1 * np.abs(plain - wanted).mean()
