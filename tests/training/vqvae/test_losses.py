"""How far a reconstruction is from its picture."""

import jax.numpy as jnp
import numpy as np
import pytest

from sdvar_jax.training.vqvae.losses import edge_error, psnr


def test_psnr_of_a_known_error():
    images = jnp.zeros((2, 4, 4, 3))
    made = jnp.stack([jnp.full((4, 4, 3), 0.2), jnp.full((4, 4, 3), 2.0)])
    # The range is 2, so an error of 0.2 is a tenth of it: 20 dB.
    np.testing.assert_allclose(psnr(made, images), [20.0, 0.0], atol=1e-4)


def test_edges_do_not_see_a_shift_of_brightness():
    images = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 3)), jnp.float32)
    assert float(edge_error(images + 0.3, images)) == pytest.approx(0.0, abs=1e-6)


def test_edges_see_a_blurred_outline():
    images = jnp.zeros((1, 2, 4, 3)).at[:, :, 2:].set(1.0)
    blurred = jnp.asarray([0.0, 0.25, 0.75, 1.0])[None, None, :, None] * jnp.ones((1, 2, 4, 3))
    # Three steps across, wrong by 0.25, 0.5 and 0.25; none down.
    assert float(edge_error(blurred, images)) == pytest.approx(1.0 / 3.0)
