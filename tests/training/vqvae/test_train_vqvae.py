"""Training a VQVAE end to end, at a tiny size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_models import VQVAE_CONFIG, Pictures

from sdvar_jax.config import VQVAEConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.models import VQVAE
from sdvar_jax.training import OptimizerConfig, RunConfig, VQVAETrainingConfig, train_vqvae
from sdvar_jax.training.vqvae.train import turned

CONFIG = VQVAETrainingConfig(
    model=VQVAE_CONFIG,
    run=RunConfig(batch_size=16, steps=24, steps_per_dispatch=12, ema_decay=0.5),
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=4),
)


@pytest.fixture(scope="module")
def trained(pictures, one_device):
    return train_vqvae(pictures, CONFIG, heldout=pictures, mesh=one_device, progress=False)


def test_the_loss_falls(trained):
    losses = trained.fit.history["loss"]
    assert losses[-4:].mean() < 0.7 * losses[:4].mean()


def test_the_report_on_held_out_pictures_is_that_of_the_model_given_back(trained, pictures):
    images = jnp.asarray(pictures.images, jnp.float32) / 127.5 - 1.0
    made = nnx.jit(VQVAE.reconstruct)(trained.model, images)
    squares = np.mean((np.asarray(made) - np.asarray(images)) ** 2, axis=(1, 2, 3))
    assert trained.heldout["psnr"] == pytest.approx(np.mean(10 * np.log10(4 / squares)), abs=0.05)
    tokens = np.concatenate(
        [np.asarray(m).reshape(-1) for m in nnx.jit(VQVAE.tokenize)(trained.model, images)]
    )
    assert trained.heldout["codebook_used"] == pytest.approx(len(np.unique(tokens)) / 24)


def test_the_codebook_is_used(trained):
    assert trained.heldout["codebook_used"] > 0.25
    assert trained.fit.history["codebook_perplexity"][-1] > 4


def test_batches_from_a_loader_train_as_well(one_device):
    config = VQVAETrainingConfig(
        model=VQVAE_CONFIG, run=RunConfig(batch_size=16, steps=12, steps_per_dispatch=12)
    )
    fitted = train_vqvae(Pictures(), config, stream=True, mesh=one_device, progress=False)
    losses = fitted.fit.history["loss"]
    assert losses[-3:].mean() < losses[:3].mean()


def test_pictures_of_another_size_are_refused(pictures):
    other = VQVAEConfig(
        pyramid=VQVAE_CONFIG.pyramid, shared_convolutions=2, channel_multipliers=(1, 1, 1)
    )
    config = VQVAETrainingConfig(model=other, run=CONFIG.run)
    with pytest.raises(SdvarError, match="the pictures have 8 px and this VQVAE makes 16 px"):
        train_vqvae(pictures, config)


def test_turning_keeps_pixels_and_touches_only_a_share():
    images = jnp.asarray(np.random.default_rng(0).random((400, 3, 3, 3)), jnp.float32)
    got = np.asarray(turned(images, 0.5, jax.random.key(0)))
    np.testing.assert_allclose(np.sort(got.sum(3).reshape(400, 9)).sum(), np.asarray(images).sum())
    same = (got == np.asarray(images)).all(axis=(1, 2, 3)).mean()
    # Half are not chosen, and one of eight of the others happens to stay.
    assert same == pytest.approx(0.5 + 0.5 / 8, abs=0.08)
    np.testing.assert_array_equal(turned(images, 0.0, jax.random.key(0)), images)
