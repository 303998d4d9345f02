"""The quantizer in training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_models import PYRAMID

from sdvar_jax.models import Quantizer
from sdvar_jax.models.resize import resize_area
from sdvar_jax.training.vqvae.quantize import quantize

BETA = 0.25
QUANTIZE = nnx.jit(quantize)
TOKENIZE = nnx.jit(Quantizer.tokenize)


@pytest.fixture
def features():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.standard_normal((3, 4, 4, 4)), jnp.float32)


def test_f_hat_is_the_quantizers_own(vqvae, features):
    got = QUANTIZE(vqvae.quantizer, features, BETA)
    _, f_hats = TOKENIZE(vqvae.quantizer, features)
    np.testing.assert_allclose(got.f_hat, f_hats[-1], atol=1e-5)


def test_the_gradient_passes_straight_through_to_the_features(vqvae, features):
    weights = jnp.asarray(np.random.default_rng(2).standard_normal(features.shape), jnp.float32)

    def weighted(features):
        return jnp.sum(weights * quantize(vqvae.quantizer, features, BETA).f_hat)

    np.testing.assert_allclose(jax.jit(jax.grad(weighted))(features), weights, atol=1e-6)


def test_the_loss_is_that_of_the_published_quantizer(vqvae, features):
    """mean over scales of beta * |f_hat - f|^2 + |f_hat - f|^2."""
    got = QUANTIZE(vqvae.quantizer, features, BETA).loss
    _, f_hats = TOKENIZE(vqvae.quantizer, features)
    errors = [np.mean((np.asarray(f_hat) - np.asarray(features)) ** 2) for f_hat in f_hats]
    np.testing.assert_allclose(got, (1 + BETA) * np.mean(errors), rtol=1e-5)


def test_commitment_alone_moves_the_features(vqvae, features):
    def loss(features, beta):
        return quantize(vqvae.quantizer, features, beta).loss

    gradient = jax.jit(jax.grad(loss))
    assert not np.any(gradient(features, 0.0))
    _, f_hats = TOKENIZE(vqvae.quantizer, features)
    pull = sum(2 * (features - f_hat) / features.size for f_hat in f_hats) / len(f_hats)
    np.testing.assert_allclose(gradient(features, 0.5), 0.5 * pull, atol=1e-6)


def test_codebook_and_residual_convolutions_learn_from_the_loss_not_from_the_picture(
    vqvae, features
):
    graph, state = nnx.split(vqvae.quantizer)

    def gradient(read):
        def value(state):
            return read(quantize(nnx.merge(graph, state), features, BETA))

        return jax.jit(jax.grad(value))(state)

    learned = gradient(lambda quantized: quantized.loss)
    assert np.any(learned.codebook[...])
    assert np.any(learned.convolutions[0].kernel[...])
    for leaf in jax.tree.leaves(gradient(lambda quantized: jnp.sum(quantized.f_hat))):
        assert not np.any(leaf)


def test_use_and_rests_tell_what_was_quantized(vqvae, features):
    got = QUANTIZE(vqvae.quantizer, features, BETA)
    token_maps, _ = TOKENIZE(vqvae.quantizer, features)
    tokens = np.concatenate([np.asarray(tokens).reshape(-1) for tokens in token_maps])
    np.testing.assert_array_equal(got.use, np.bincount(tokens, minlength=24))
    assert [rest.shape for rest in got.rests] == [(3 * n, 4) for n in PYRAMID.lengths]
    coarsest = resize_area(features, 1).reshape(3, 4)
    np.testing.assert_allclose(got.rests[0], coarsest, atol=1e-6)
