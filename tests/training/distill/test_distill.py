"""Distillation moves a draft towards its target."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_models import PYRAMID, VAR_CONFIG, lively_var

from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig, filter_logits, guidance_by_scale, gumbel_noise
from sdvar_jax.training import DistillConfig, OptimizerConfig, RunConfig, distill
from sdvar_jax.training.distill import measure_agreement
from sdvar_jax.training.distill.loss import divergence, guided_logits, strengths_by_position
from sdvar_jax.training.drawing import balanced_labels, draw_samples
from sdvar_jax.training.var.tokens import inputs_of_tokens

SAMPLING = SamplingConfig(cfg=1.0, top_k=20, top_p=0.0)
CONFIG = DistillConfig(
    run=RunConfig(batch_size=16, steps=60, steps_per_dispatch=30, ema_decay=0.5),
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=4, weight_decay=0.0),
    sampling=SAMPLING,
    own_share=0.5,
    own_samples=32,
    sample_batch=16,
    measured=32,
)


@pytest.fixture(scope="module")
def target():
    return lively_var(0)


@pytest.fixture(scope="module")
def draft():
    return lively_var(1, dataclasses.replace(VAR_CONFIG, depth=1))


@pytest.fixture(scope="module")
def distilled(tokens, vqvae, target, draft, one_device):
    return distill(
        tokens, vqvae, target, draft, CONFIG, heldout=tokens, mesh=one_device, progress=False
    )


def test_the_divergence_falls(distilled):
    kl = distilled.fit.history["kl"]
    assert kl[-5:].mean() < 0.5 * kl[0]


def test_the_draft_agrees_with_the_target_more_often(distilled):
    assert distilled.after["tokens"] > distilled.before["tokens"]
    assert distilled.after["scales"] > distilled.before["scales"]


def test_the_draft_given_is_not_changed(distilled, draft):
    fresh = lively_var(1, dataclasses.replace(VAR_CONFIG, depth=1))
    np.testing.assert_array_equal(draft.head_kernel[...], fresh.head_kernel[...])
    assert np.any(np.asarray(distilled.model.head_kernel[...]) != draft.head_kernel[...])


def test_a_model_agrees_with_itself(target, vqvae):
    labels = balanced_labels(6, 2)
    sampling = SamplingConfig(cfg=1.5, top_k=20, top_p=0.9)
    got = measure_agreement(target, target, vqvae.quantizer, labels, sampling, 3, batch_size=4)
    assert got["tokens"] == 1.0
    assert got["scales_by_scale"] == [1.0, 1.0, 1.0]
    assert got["pictures"] == 6


def test_agreement_is_given_the_targets_own_scales(target, draft, vqvae):
    """Token by token what the draft would draw at a scale after the target's scales before."""
    labels = balanced_labels(4, 2)
    got = measure_agreement(target, draft, vqvae.quantizer, labels, SAMPLING, 3, batch_size=4)
    drawn = draw_samples(target, vqvae.quantizer, labels, SAMPLING, 3, 4).tokens
    inputs = nnx.jit(inputs_of_tokens)(vqvae.quantizer, jnp.asarray(drawn))
    strengths = strengths_by_position(jnp.ones(4), guidance_by_scale(1.0, 3), PYRAMID.lengths)
    logits, _ = nnx.jit(guided_logits, static_argnames="attention")(
        draft, jnp.asarray(labels), inputs, strengths, attention="xla"
    )
    noise = gumbel_noise(jnp.uint32(3), jnp.arange(4), jnp.arange(PYRAMID.total_length), 24)
    filtered = filter_logits(logits, SAMPLING.top_k, SAMPLING.top_p)
    agreed = np.asarray(jnp.argmax(filtered + noise, axis=-1)) == drawn
    assert got["tokens"] == pytest.approx(agreed.mean())
    assert got["scales_by_scale"][1] == pytest.approx(agreed[:, 1:5].all(axis=1).mean())


def test_samples_do_not_depend_on_the_batch_they_are_drawn_in(target, vqvae):
    labels = balanced_labels(5, 2)
    together, apart = (
        draw_samples(target, vqvae.quantizer, labels, SAMPLING, 7, batch_size=size).tokens
        for size in (5, 2)
    )
    np.testing.assert_array_equal(together, apart)


def test_divergence_is_zero_for_equal_and_positive_for_other_distributions():
    rng = np.random.default_rng(0)
    first, second = (jnp.asarray(rng.standard_normal((2, 3, 5)), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(divergence(first, first + 1.0), 0.0, atol=1e-6)
    p, q = (np.asarray(jax.nn.softmax(logits / 2.0)) for logits in (first, second))
    wanted = (p * np.log(p / q)).sum(axis=-1)
    np.testing.assert_allclose(divergence(first, second, 2.0), wanted, rtol=1e-4)
    assert (wanted > 0).all()


def test_divergence_from_a_filtered_target_takes_only_what_can_come():
    rng = np.random.default_rng(0)
    target, draft = (jnp.asarray(rng.standard_normal((1, 1, 5)), jnp.float32) for _ in range(2))
    target = target.at[..., 2:].set(-jnp.inf)
    p, q = (np.asarray(jax.nn.softmax(logits))[0, 0] for logits in (target, draft))
    wanted = (p[:2] * np.log(p[:2] / q[:2])).sum()
    value, gradient = jax.value_and_grad(lambda draft: divergence(target, draft).sum())(draft)
    assert float(value) == pytest.approx(wanted, rel=1e-4)
    np.testing.assert_allclose(gradient[0, 0], q - p, atol=1e-5)


def test_models_of_other_classes_are_refused(tokens, vqvae, target):
    other = lively_var(1, dataclasses.replace(VAR_CONFIG, num_classes=3))
    with pytest.raises(SdvarError, match="num_classes 3 and 2"):
        distill(tokens, vqvae, target, other, CONFIG)
