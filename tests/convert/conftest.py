"""Tiny models as files, written once."""

import numpy as np
import pytest
from golden_weights import fill, golden_manifest
from pth_writer import save_pth


@pytest.fixture(scope="session")
def var_state():
    return fill(golden_manifest("var_tiny_d2_l2"))


@pytest.fixture(scope="session")
def vqvae_state():
    return fill(golden_manifest("vqvae_tiny"))


@pytest.fixture
def save(tmp_path):
    """Saves a state dict, with some keys changed (None: removed), as ``.pth``; returns the path."""

    def save(name, state, **changes):
        state = {**state, **{key.replace("__", "."): value for key, value in changes.items()}}
        path = tmp_path / f"{name}.pth"
        save_pth(path, {key: value for key, value in state.items() if value is not None})
        return path

    return save


@pytest.fixture
def var_file(save, var_state):
    return save("var", var_state)


@pytest.fixture
def vqvae_file(save, vqvae_state):
    return save("vqvae", vqvae_state)


def as_dtype(state, dtype):
    """The floating-point arrays of a state dict in another dtype."""
    return {
        key: value.astype(dtype) if value.dtype == np.float32 else value
        for key, value in state.items()
    }


@pytest.fixture(name="as_dtype")
def as_dtype_fixture():
    return as_dtype
