"""Models of the original and ours with the same weights.

JAX is imported inside the fixtures, after the tests have chosen its settings.
"""

import functools

import pytest

FILES = "files"


@pytest.fixture(scope="session")
def original(var_repo):
    """The original from the user's checkout."""
    from original_var import Original

    return Original(var_repo)


@pytest.fixture(scope="session", params=["qk_norm", "no_qk_norm", "shared_adaln", "d16", FILES])
def pair(request, original):
    """Weights by formula in three small models and in the official size, and the user's files."""
    from parity_models import BY_FORMULA, by_formula, from_files

    if request.param == FILES:
        files = [request.getfixturevalue(option) for option in ("var_ckpt", "vae_ckpt")]
        return from_files(original, *files)
    pair = by_formula(original, request.param)
    assert (pair.var.config, pair.vqvae.config) == BY_FORMULA[request.param]
    return pair


@pytest.fixture(scope="session")
def greedy(pair):
    """The original's greedy run at a guidance strength, made once."""
    return functools.cache(
        lambda cfg: pair.original.generate(pair.torch_var, pair.labels, cfg, top_k=1)
    )


@pytest.fixture(scope="session")
def pipeline(pair):
    """What samples from our models."""
    from sdvar_jax import Pipeline

    return Pipeline(pair.var, pair.vqvae)
