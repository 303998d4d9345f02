"""Encoder, decoder and the way through both, against the original's."""

import jax.numpy as jnp
import numpy as np
import pytest
from golden_models import nhwc
from original_var import nchw, quietly
from parity_models import compiled

from sdvar_jax.models import VQVAE

pytestmark = pytest.mark.torch


@pytest.fixture
def images(pair):
    """In [-1, 1], [1, side, side, 3]."""
    side = pair.vqvae.config.image_side
    return np.tanh(np.random.RandomState(12).standard_normal((1, side, side, 3))).astype(np.float32)


def test_encoder(pair, images):
    with quietly():
        wanted = pair.torch_vqvae.quant_conv(pair.torch_vqvae.encoder(nchw(images))).numpy()
    got = compiled(VQVAE.encode, pair.vqvae, jnp.asarray(images))
    pair.assert_close("features", got, nhwc(wanted), 2e-4)


def test_decoder(pair):
    config = pair.vqvae.config
    side, channels = config.pyramid.latent_side, config.latent_channels
    f_hat = np.random.RandomState(3).standard_normal((1, side, side, channels)).astype(np.float32)
    with quietly():
        wanted = pair.torch_vqvae.fhat_to_img(nchw(f_hat)).numpy()
    got = compiled(VQVAE.decode, pair.vqvae, jnp.asarray(f_hat))
    pair.assert_close("image", got, nhwc(wanted), 1e-3)


def test_image_from_the_originals_tokens(pair, images):
    with quietly():
        tokens = pair.torch_vqvae.img_to_idxBl(nchw(images))
        wanted = pair.torch_vqvae.idxBl_to_img(tokens, same_shape=True, last_one=True).numpy()
    tokens = tuple(jnp.asarray(scale.numpy(), jnp.int32) for scale in tokens)
    got = compiled(VQVAE.decode_tokens, pair.vqvae, tokens)
    pair.assert_close("image", got, nhwc(wanted), 1e-3)
