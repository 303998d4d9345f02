"""Tiny models with random weights, made once."""

import pytest


def _model(kind, config_name, seed):
    # JAX may be imported only once the settings of the tests are made.
    import golden_models
    from flax import nnx

    from sdvar_jax import models

    config = golden_models.TINY_VARS.get(config_name, golden_models.TINY_VQVAE)
    return getattr(models, kind)(config, rngs=nnx.Rngs(seed))


@pytest.fixture(scope="session")
def var():
    return _model("VAR", "var_tiny_d2_l2", 0)


@pytest.fixture(scope="session")
def draft():
    return _model("VAR", "var_tiny_d2_saln_l2", 1)


@pytest.fixture(scope="session")
def vqvae():
    return _model("VQVAE", "vqvae_tiny", 2)
