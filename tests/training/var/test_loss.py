"""Labels are dropped, scales are weighed, tokens are scored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdvar_jax.config import PYRAMID_256
from sdvar_jax.training.var.loss import drop_labels, position_weights, token_losses


def test_a_share_of_the_labels_becomes_no_class():
    labels = jnp.tile(jnp.arange(5), 2000)
    got = np.asarray(drop_labels(labels, 5, 0.1, jax.random.key(0)))
    dropped = got == 5
    assert dropped.mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_array_equal(got[~dropped], np.asarray(labels)[~dropped])
    # Every class alike.
    np.testing.assert_allclose(dropped.reshape(-1, 5).mean(axis=0), 0.1, atol=0.025)


def test_no_label_is_dropped_at_a_share_of_zero():
    labels = jnp.arange(5)
    np.testing.assert_array_equal(drop_labels(labels, 5, 0.0, jax.random.key(0)), labels)


def test_each_draw_is_another():
    labels = jnp.zeros((500,), jnp.int32)
    first, second = (drop_labels(labels, 5, 0.5, jax.random.key(seed)) for seed in (0, 1))
    assert (np.asarray(first) != np.asarray(second)).any()


def test_scales_weigh_by_a_power_of_their_tokens():
    lengths = np.array(PYRAMID_256.lengths)
    even = position_weights(PYRAMID_256, 1.0)
    np.testing.assert_allclose(even, 1 / 680, rtol=1e-5)
    for power in (0.0, 0.5):
        weights = position_weights(PYRAMID_256, power)
        of_scales = np.add.reduceat(weights, PYRAMID_256.offsets[:-1])
        np.testing.assert_allclose(of_scales, lengths**power / (lengths**power).sum(), rtol=1e-5)


def test_token_losses_are_negative_log_probabilities():
    logits = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 7)), jnp.float32)
    tokens = jnp.asarray([[0, 1, 2], [3, 4, 6]])
    log_p = np.asarray(jax.nn.log_softmax(logits))
    wanted = -np.take_along_axis(log_p, np.asarray(tokens)[..., None], -1)[..., 0]
    np.testing.assert_allclose(token_losses(logits, tokens), wanted, rtol=1e-5)
    smooth = 0.8 * wanted + 0.2 * -log_p.mean(axis=-1)
    np.testing.assert_allclose(token_losses(logits, tokens, 0.2), smooth, rtol=1e-5)
