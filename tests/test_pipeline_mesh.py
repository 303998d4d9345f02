"""Sampling spread over the devices of a mesh gives the pictures of one device."""

import jax
import numpy as np
import pytest
from golden_models import TINY_VARS, TINY_VQVAE, golden_model

from sdvar_jax.errors import SdvarError
from sdvar_jax.pipeline import Pipeline


@pytest.fixture(scope="module")
def models():
    name = "var_tiny_d2_l2"
    return golden_model(name, TINY_VARS[name]), golden_model("vqvae_tiny", TINY_VQVAE)


def test_a_batch_spread_over_two_devices_is_that_of_one(models):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    labels = [1, 7, 3]  # on two devices: one row fills up
    alone = Pipeline(*models).sample(labels, seed=5)
    spread = Pipeline(*models, mesh=mesh).sample(labels, seed=5)
    for one, many in zip(alone.tokens, spread.tokens, strict=True):
        np.testing.assert_array_equal(one, many)
    np.testing.assert_allclose(alone.images, spread.images, atol=1e-4)


def test_a_mesh_without_a_data_axis_is_refused(models):
    mesh = jax.make_mesh((1,), ("model",), devices=jax.devices()[:1])
    with pytest.raises(SdvarError, match='needs an axis "data"'):
        Pipeline(*models, mesh=mesh)
