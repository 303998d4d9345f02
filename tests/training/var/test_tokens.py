"""A set as tokens, and teacher forcing from tokens that are a little off."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from training_models import PYRAMID

from sdvar_jax.models import VQVAE
from sdvar_jax.models.resize import resize_area
from sdvar_jax.training import TokenNoiseConfig, tokenize_set
from sdvar_jax.training.var.quantizer import FrozenQuantizer
from sdvar_jax.training.var.tokens import by_scale, inputs_of_tokens, noisy_inputs

INPUTS = nnx.jit(inputs_of_tokens)
NOISY = nnx.jit(noisy_inputs, static_argnames="noise")


def test_tokens_are_the_vqvaes(pictures, vqvae, tokens):
    images = jnp.asarray(pictures.images, jnp.float32) / 127.5 - 1.0
    wanted = jnp.concatenate(nnx.jit(VQVAE.tokenize)(vqvae, images), axis=1)
    np.testing.assert_array_equal(tokens.tokens, wanted)
    assert tokens.tokens.dtype == np.uint16
    assert (tokens.class_names, tokens.glyphs) == (pictures.class_names, pictures.glyphs)


def test_a_last_batch_that_is_smaller_loses_nothing(pictures, vqvae, tokens):
    got = tokenize_set(pictures, vqvae, batch_size=12)
    np.testing.assert_array_equal(got.tokens, tokens.tokens)
    assert got.features is None


def test_inputs_of_tokens_are_the_quantizers(vqvae, tokens):
    some = jnp.asarray(tokens.tokens[:3])
    f_hats = vqvae.quantizer.f_hats(by_scale(some, PYRAMID))
    wanted = vqvae.quantizer.teacher_forcing_inputs(f_hats)
    np.testing.assert_allclose(INPUTS(vqvae.quantizer, some), wanted, atol=1e-6)


def test_without_noise_features_give_the_tokenizers_tokens_and_inputs(vqvae, tokens):
    features = jnp.asarray(tokens.features[:4])
    got, inputs = NOISY(
        vqvae.quantizer, features, noise=TokenNoiseConfig(0.0), key=jax.random.key(0)
    )
    np.testing.assert_array_equal(got, tokens.tokens[:4])
    wanted = INPUTS(vqvae.quantizer, jnp.asarray(tokens.tokens[:4]))
    np.testing.assert_allclose(inputs, wanted, atol=1e-5)


def test_noise_disturbs_inputs_and_later_scales_make_the_best_of_it(vqvae, tokens):
    features = jnp.asarray(tokens.features)
    noise = TokenNoiseConfig(share=1.0, strength=4.0)
    got, inputs = NOISY(vqvae.quantizer, features, noise=noise, key=jax.random.key(0))
    clean = INPUTS(vqvae.quantizer, jnp.asarray(tokens.tokens))
    assert (np.abs(inputs - clean) > 1e-3).mean() > 0.1
    # The first scale has nothing before it: what is wanted there is the tokenizer's token.
    np.testing.assert_array_equal(got[:, :1], tokens.tokens[:, :1])
    # Later, what is wanted is nearest to what the disturbed scales have left; the inputs are
    # f_hat at the side of their scale.
    for scale in (1, 2):
        place, side = PYRAMID.window(scale, scale + 1), PYRAMID.sides[scale]
        left = resize_area(features, side).reshape(len(features), -1, 4)
        left -= inputs[:, place.start - 1 : place.stop - 1]
        np.testing.assert_array_equal(got[:, place], vqvae.quantizer.nearest(left))
    assert (np.asarray(got[:, 1:]) != tokens.tokens[:, 1:]).any()


def test_a_frozen_quantizer_takes_no_gradient(vqvae, tokens):
    frozen = FrozenQuantizer.of(vqvae)
    some = jnp.asarray(tokens.tokens[:2])

    def total(params):
        return jnp.sum(inputs_of_tokens(frozen.build(params), some) ** 2)

    for gradient in jax.tree.leaves(jax.jit(jax.grad(total))(dict(frozen.params))):
        assert not np.any(gradient)


def test_own_tokens_take_the_pictures_place_and_later_scales_make_the_best_of_it(vqvae, tokens):
    features = jnp.asarray(tokens.features)
    noise = TokenNoiseConfig(own_share=1.0, own_scales=2)
    seen = {}

    def draw(inputs, scale, key):
        del key
        seen[scale] = inputs.shape
        return jnp.full((len(features), PYRAMID.lengths[scale]), 3, jnp.int32)

    got, inputs = noisy_inputs(vqvae.quantizer, features, noise, jax.random.key(0), draw=draw)
    # The second of the three scales alone is drawn, from its own input.
    assert seen == {1: (len(features), PYRAMID.lengths[1], 4)}
    # Up to there everything is the tokenizer's.
    upto = PYRAMID.window(0, 2).stop
    np.testing.assert_array_equal(got[:, :upto], tokens.tokens[:, :upto])
    # A picture that drew a share of s has about that share of token 3 in the scale, and what the
    # third scale wants is nearest to what these tokens have left.
    clean = INPUTS(vqvae.quantizer, jnp.asarray(tokens.tokens))
    second, third = PYRAMID.window(1, 2), PYRAMID.window(2, 3)
    np.testing.assert_allclose(
        inputs[:, second.start - 1 : second.stop - 1],
        clean[:, second.start - 1 : second.stop - 1],
        atol=1e-5,
    )
    assert (np.abs(inputs - clean)[:, third.start - 1 :] > 1e-3).mean() > 0.1
    left = resize_area(features, PYRAMID.sides[2]).reshape(len(features), -1, 4)
    left -= inputs[:, third.start - 1 : third.stop - 1]
    np.testing.assert_array_equal(got[:, third], vqvae.quantizer.nearest(left))
