"""Training a VAR end to end, at a tiny size."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_models import PYRAMID, VAR_CONFIG

from sdvar_jax.errors import SdvarError
from sdvar_jax.models import VAR
from sdvar_jax.training import (
    OptimizerConfig,
    RunConfig,
    TokenNoiseConfig,
    VARTrainingConfig,
    train_var,
)
from sdvar_jax.training.sharding import data_mesh
from sdvar_jax.training.var.forward import all_logits
from sdvar_jax.training.var.loss import token_losses
from sdvar_jax.training.var.tokens import inputs_of_tokens
from sdvar_jax.training.var.train import own_tokens

CONFIG = VARTrainingConfig(
    model=VAR_CONFIG,
    run=RunConfig(batch_size=16, steps=30, steps_per_dispatch=15, ema_decay=0.5),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=4),
    balance="class",
    scale_power=0.5,
)
EMBEDDED = (VAR_CONFIG.pyramid.total_length, VAR_CONFIG.width)
"""Shape of the position embedding, which no other weight has."""


@pytest.fixture(scope="module")
def trained(tokens, vqvae, one_device):
    return train_var(tokens, vqvae, CONFIG, heldout=tokens, mesh=one_device, progress=False)


def test_the_loss_falls_below_that_of_knowing_nothing(trained):
    losses = trained.fit.history["token_loss"]
    assert losses[0] == pytest.approx(np.log(24), abs=0.1)
    assert losses[-4:].mean() < 0.7 * losses[0]


def test_the_report_on_held_out_tokens_is_that_of_the_model_given_back(trained, tokens, vqvae):
    labels = jnp.asarray(tokens.labels)
    inputs = nnx.jit(inputs_of_tokens)(vqvae.quantizer, jnp.asarray(tokens.tokens))
    logits = nnx.jit(VAR.teacher_forced)(trained.model, labels, inputs)
    losses = np.asarray(token_losses(logits, jnp.asarray(tokens.tokens, jnp.int32)))
    assert trained.heldout["token_loss"] == pytest.approx(losses.mean(), rel=1e-3)
    assert trained.heldout["token_loss/scale_3"] == pytest.approx(losses[:, 5:].mean(), rel=1e-3)


def test_the_model_learns_what_the_labels_say(trained, tokens, vqvae):
    """The first token, which has nothing but the label to go by, depends on it."""
    inputs = nnx.jit(inputs_of_tokens)(vqvae.quantizer, jnp.asarray(tokens.tokens[:1]))
    pair = jnp.concatenate([inputs, inputs])
    logits = nnx.jit(VAR.teacher_forced)(trained.model, jnp.asarray([0, 1]), pair)[:, 0]
    assert float(jnp.max(jnp.abs(logits[0] - logits[1]))) > 0.03


def test_eight_devices_give_the_losses_of_one(trained, tokens, vqvae):
    assert len(jax.devices()) == 8
    eight = train_var(tokens, vqvae, CONFIG, mesh=data_mesh(), progress=False)
    # Rounding grows from step to step.
    first = slice(0, 15)
    np.testing.assert_allclose(
        eight.fit.history["loss"][first], trained.fit.history["loss"][first], rtol=5e-4
    )


@pytest.mark.parametrize("noise", [TokenNoiseConfig(0.5), TokenNoiseConfig(own_share=0.5)])
def test_token_noise_needs_features(tokens, vqvae, noise):
    config = dataclasses.replace(CONFIG, token_noise=noise)
    bare = dataclasses.replace(tokens, features=None)
    with pytest.raises(SdvarError, match="token noise needs the encoder's features"):
        train_var(bare, vqvae, config)


@pytest.mark.parametrize("noise", [TokenNoiseConfig(0.5), TokenNoiseConfig(own_share=0.5)])
def test_token_noise_trains_from_features(tokens, vqvae, one_device, noise):
    run = dataclasses.replace(CONFIG.run, steps=15)
    config = dataclasses.replace(CONFIG, run=run, token_noise=noise)
    losses = train_var(tokens, vqvae, config, mesh=one_device, progress=False).fit.history["loss"]
    assert losses[-3:].mean() < 0.9 * losses[0]


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_training_on_the_first_scales_leaves_the_rest_as_it_was(tokens, vqvae, one_device, share):
    run = dataclasses.replace(CONFIG.run, steps=15)
    noise = TokenNoiseConfig(share)
    config = dataclasses.replace(CONFIG, run=run, scales=2, token_noise=noise)
    made = train_var(tokens, vqvae, config, mesh=one_device, progress=False)
    losses = made.fit.history["loss"]
    assert losses[-3:].mean() < 0.9 * losses[0]
    # No gradient reaches what only later scales use: its moments stay zero.
    moments = made.fit.state.opt_state
    last = [np.asarray(leaf) for leaf in jax.tree.leaves(moments) if leaf.shape == EMBEDDED]
    assert last
    for moment in last:
        assert np.abs(moment[: config.trained_pyramid.total_length]).max() > 0
        np.testing.assert_array_equal(moment[config.trained_pyramid.total_length :], 0.0)


def test_own_tokens_follow_the_models_own_distribution(trained):
    labels = jnp.asarray([0] * 400)
    inputs = jnp.zeros((400, PYRAMID.lengths[1], trained.model.config.latent_channels))

    @nnx.jit
    def drawn(model):
        tokens = own_tokens(model, labels)(inputs, 1, jax.random.key(0))
        logits = all_logits(model, labels[:1], inputs[:1], scales=2)[0, PYRAMID.window(1, 2)]
        return tokens, jax.nn.softmax(logits)

    tokens, wanted = drawn(trained.model)  # [400, length], [length, vocab]
    assert tokens.shape == (400, PYRAMID.lengths[1])
    shares = jax.nn.one_hot(tokens, wanted.shape[-1]).mean(axis=0)
    # Half the absolute difference of two distributions; 400 draws of 16 tokens leave about 0.05.
    assert float(0.5 * jnp.abs(shares - wanted).sum(-1).max()) < 0.15


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"own_share": 1.5}, "own_share must lie in 0..1"),
        ({"own_scales": 1}, "own_scales must be at least 2"),
    ],
)
def test_own_tokens_that_cannot_be_are_refused(settings, said):
    with pytest.raises(SdvarError, match=said):
        TokenNoiseConfig(**settings)


@pytest.mark.parametrize("scales", [1, 4])
def test_scales_that_there_are_not_are_refused(scales):
    with pytest.raises(SdvarError, match=r"scales must lie in 2\.\.3"):
        dataclasses.replace(CONFIG, scales=scales)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_classes": 3}, "the set has 2 classes and the model 3"), ({"vocab_size": 25}, "vocab")],
)
def test_models_that_do_not_belong_to_the_set_are_refused(tokens, vqvae, change, message):
    model = dataclasses.replace(VAR_CONFIG, **change)
    with pytest.raises(SdvarError, match=message):
        train_var(tokens, vqvae, dataclasses.replace(CONFIG, model=model))
