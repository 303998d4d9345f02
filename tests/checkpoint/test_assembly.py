"""Models are built from arrays, and from exactly the right ones."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sdvar_jax.checkpoint.assembly import (
    abstract_arrays,
    abstract_model,
    assemble,
    flatten,
    nest,
)
from sdvar_jax.checkpoint.store import PartWeights
from sdvar_jax.config import BFLOAT16
from sdvar_jax.errors import SdvarError


@pytest.fixture
def arrays(var):
    return {path: array.read() for path, array in PartWeights.of(var).arrays.items()}


def test_an_assembled_model_equals_the_one_its_arrays_come_from(var, arrays):
    chex.assert_trees_all_equal(nnx.state(assemble(var.config, arrays)), nnx.state(var))


def test_arrays_may_be_nested(var, arrays):
    nested = nest(arrays)
    assert nested["blocks"][1]["attn"]["q_bias"].shape == (128,)
    assert flatten(nested).keys() == arrays.keys()
    chex.assert_trees_all_equal(nnx.state(assemble(var.config, nested)), nnx.state(var))


def test_arrays_take_the_policys_dtype(vqvae):
    arrays = {path: array.read() for path, array in PartWeights.of(vqvae).arrays.items()}
    made = assemble(vqvae.config, arrays, BFLOAT16)
    assert made.encoder.conv_in.kernel[...].dtype == jnp.bfloat16
    assert made.quantizer.codebook[...].dtype == jnp.float32
    assert made.dtypes == BFLOAT16


def test_everything_that_does_not_fit_is_named(var, arrays):
    del arrays["head_bias"], arrays["blocks.0.attn.q_bias"]
    arrays["adapter"] = np.zeros(3)
    arrays["class_embed"] = np.zeros((11, 5), np.float32)
    with pytest.raises(SdvarError) as caught:
        assemble(var.config, arrays)
    assert str(caught.value) == (
        "the weights do not fit the VAR model; "
        "2 missing: blocks.0.attn.q_bias, head_bias; "
        "1 unexpected: adapter; "
        "1 mis-shaped: class_embed [11, 5] instead of [11, 128]"
    )


def test_an_abstract_model_allocates_nothing(var):
    leaves = dict(nnx.to_flat_state(nnx.state(abstract_model(var.config))))
    assert {path: leaf.shape for path, leaf in abstract_arrays(var.config).items()} == {
        ".".join(map(str, path)): leaf.shape for path, leaf in leaves.items()
    }
    for leaf in leaves.values():
        assert not hasattr(leaf.get_value(), "devices")
