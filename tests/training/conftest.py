"""Fixtures of the training tests; what needs JAX is imported after its settings are chosen."""

import pytest


@pytest.fixture(scope="session")
def pictures():
    from training_models import Pictures

    return Pictures()


@pytest.fixture(scope="session")
def vqvae():
    from training_models import lively_vqvae

    return lively_vqvae()


@pytest.fixture(scope="session")
def tokens(pictures, vqvae):
    from sdvar_jax.training import tokenize_set

    return tokenize_set(pictures, vqvae, features=True)


@pytest.fixture(scope="session")
def one_device():
    import jax

    from sdvar_jax.training.sharding import data_mesh

    return data_mesh(jax.devices()[:1])
