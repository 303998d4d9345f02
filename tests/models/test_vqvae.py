"""The VQVAE reproduces the original's numbers."""

import json

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_models import (
    OFFICIAL_LAYOUT_VQVAE,
    TINY_VQVAE,
    golden,
    golden_model,
    nhwc,
)
from golden_weights import GOLDEN

from sdvar_jax.config import PYRAMID_256, PYRAMID_512, VQVAEConfig
from sdvar_jax.models import VQVAE
from sdvar_jax.models.kernels import INTERPRETED
from sdvar_jax.models.vqvae.quantizer import Quantizer, convolution_of_scale

SCALES = {"256": PYRAMID_256.num_scales, "512": PYRAMID_512.num_scales, "tiny": 4}


@pytest.fixture(scope="module")
def tiny():
    return golden_model("vqvae_tiny", TINY_VQVAE)


@pytest.fixture(scope="module")
def official_layout():
    return golden_model("vqvae_256layout", OFFICIAL_LAYOUT_VQVAE)


@pytest.mark.parametrize("name", json.loads((GOLDEN / "phi_index.json").read_text()))
def test_each_scale_uses_the_originals_residual_convolution(name):
    wanted = json.loads((GOLDEN / "phi_index.json").read_text())[name]
    scales, shared = name.split("_share")
    assert list(convolution_of_scale(int(shared), SCALES[scales])) == wanted


def test_encoder_features(tiny):
    arrays = golden("vqvae_tiny")
    got = nnx.jit(VQVAE.encode)(tiny, jnp.asarray(nhwc(arrays["img"])))
    chex.assert_shape(got, (2, 4, 4, 8))
    np.testing.assert_allclose(got, nhwc(arrays["encoder_f"]), atol=2e-4, rtol=0)


def test_tokens_are_equal_and_f_hat_agrees_at_every_scale(tiny):
    arrays = golden("vqvae_tiny")
    token_maps, f_hats = tiny.quantizer.tokenize(jnp.asarray(nhwc(arrays["encoder_f"])))
    chex.assert_shape(f_hats, (4, 2, 4, 4, 8))
    for scale, tokens in enumerate(token_maps):
        np.testing.assert_array_equal(tokens, arrays[f"idx_{scale}"])
        np.testing.assert_allclose(f_hats[scale], nhwc(arrays[f"fhat_{scale}"]), atol=2e-4, rtol=0)


def test_f_hat_from_tokens_is_f_hat_while_tokenizing(tiny):
    arrays = golden("vqvae_tiny")
    token_maps = tuple(jnp.asarray(arrays[f"idx_{scale}"]) for scale in range(4))
    f_hats = tiny.quantizer.f_hats(token_maps)
    for scale in range(4):
        np.testing.assert_allclose(f_hats[scale], nhwc(arrays[f"fhat_{scale}"]), atol=2e-4, rtol=0)


def test_teacher_forcing_inputs(tiny):
    arrays = golden("vqvae_tiny")
    token_maps = tuple(jnp.asarray(arrays[f"idx_{scale}"]) for scale in range(4))
    got = tiny.quantizer.teacher_forcing_inputs(tiny.quantizer.f_hats(token_maps))
    np.testing.assert_allclose(got, arrays["idxBl_to_var_input"], atol=2e-4, rtol=0)


def test_decoded_image(tiny):
    arrays = golden("vqvae_tiny")
    got = nnx.jit(VQVAE.decode)(tiny, jnp.asarray(nhwc(arrays["fhat_3"])))
    chex.assert_shape(got, (2, 64, 64, 3))
    np.testing.assert_allclose(got, nhwc(arrays["fhat_to_img"]), atol=1e-3, rtol=0)


def test_image_to_tokens_to_image(tiny):
    arrays = golden("vqvae_tiny")
    got = nnx.jit(VQVAE.reconstruct)(tiny, jnp.asarray(nhwc(arrays["img"])))
    np.testing.assert_allclose(got, nhwc(arrays["reconstructed"]), atol=1e-3, rtol=0)


def test_official_layout_of_ten_scales(official_layout):
    arrays = golden("vqvae_256layout")
    image = np.tanh(np.random.RandomState(12).standard_normal((1, 3, 256, 256)))
    features = nnx.jit(VQVAE.encode)(official_layout, jnp.asarray(nhwc(image), jnp.float32))
    np.testing.assert_allclose(features, nhwc(arrays["encoder_f"]), atol=2e-4, rtol=0)
    token_maps, f_hats = official_layout.quantizer.tokenize(features)
    for scale, tokens in enumerate(token_maps):
        np.testing.assert_array_equal(tokens, arrays[f"idx_{scale}"])
    np.testing.assert_allclose(f_hats[-1], nhwc(arrays["fhat_last"]), atol=2e-4, rtol=0)
    inputs = official_layout.quantizer.teacher_forcing_inputs(f_hats)
    np.testing.assert_allclose(inputs, arrays["idxBl_to_var_input"], atol=2e-4, rtol=0)
    decoded = nnx.jit(VQVAE.decode)(official_layout, f_hats[-1])[:, ::4, ::4]
    np.testing.assert_allclose(decoded, nhwc(arrays["fhat_to_img_stride4"]), atol=1e-3, rtol=0)


def test_wrong_image_side_is_refused(tiny):
    with pytest.raises(AssertionError):
        tiny.encode(jnp.zeros((1, 32, 32, 3)))


def test_the_quantizers_kernels_give_the_same_f_hat_and_inputs():
    config = VQVAEConfig(vocab_size=64, latent_channels=16)
    quantizer = Quantizer(config, rngs=nnx.Rngs(0))
    fused = nnx.merge(*nnx.split(quantizer))
    fused.kernels = INTERPRETED
    random = np.random.default_rng(0)
    tokens = tuple(
        jnp.asarray(random.integers(0, 64, (2, length))) for length in config.pyramid.lengths
    )
    wanted, got = quantizer.f_hats(tokens), fused.f_hats(tokens)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    np.testing.assert_allclose(
        fused.teacher_forcing_inputs(wanted), quantizer.teacher_forcing_inputs(wanted), atol=1e-6
    )


def test_channels_that_no_tile_is_as_wide_as_take_the_reference_path():
    config = VQVAEConfig(vocab_size=64, latent_channels=24)
    quantizer = Quantizer(config, rngs=nnx.Rngs(0))
    tokens = (jnp.asarray([[3]]), jnp.asarray([[5, 0, 1, 2]]))
    wanted = quantizer.f_hats(tokens)
    quantizer.kernels = INTERPRETED
    np.testing.assert_array_equal(quantizer.f_hats(tokens), wanted)
