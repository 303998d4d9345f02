"""Random weights: in the wanted dtype, on a realistic scale, alike for one seed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.random_models import (
    TINY,
    TINY_DRAFT,
    RandomModels,
    draft_config,
    draft_name,
    random_model,
    target_config,
    vqvae_config,
)
from sdvar_jax.checkpoint.compatibility import check_compatible, check_draft
from sdvar_jax.config import BFLOAT16, FLOAT32
from sdvar_jax.errors import SdvarError


@pytest.fixture(scope="module")
def model():
    return random_model(TINY_DRAFT, BFLOAT16)


def test_weights_have_the_policy_s_dtype_and_are_not_zero(model):
    for path, leaf in nnx.to_flat_state(nnx.state(model)):
        values = np.asarray(leaf[...], np.float32)
        assert leaf.dtype == jnp.bfloat16, path
        assert np.isfinite(values).all(), path
        assert (values != 0).any(), path


def test_kernels_keep_the_size_of_what_passes_through(model):
    kernel = np.asarray(model.blocks[0].attn.qkv_kernel[...], np.float32)
    assert kernel.std() == pytest.approx(kernel.shape[0] ** -0.5, rel=0.05)


def test_weights_may_be_eight_bits():
    models = RandomModels.make("tiny", "tiny", BFLOAT16, weights="int8")
    for model in (models.target, models.draft):
        assert model.blocks[0].attn.qkv_kernel.dtype == jnp.int8
        assert model.head_kernel.dtype == jnp.bfloat16


def test_parameters_and_seeds_differ():
    first, second = (nnx.state(random_model(TINY, FLOAT32, seed)) for seed in (0, 1))
    blocks = first["blocks"]
    assert not np.array_equal(blocks[0]["attn"]["qkv_kernel"], blocks[1]["attn"]["qkv_kernel"])
    assert not np.array_equal(jax.tree.leaves(first)[0], jax.tree.leaves(second)[0])


@pytest.mark.parametrize("name", ["tiny", "d16", "d36"])
def test_draft_target_and_vqvae_belong_together(name):
    target = target_config(name)
    check_compatible(target, vqvae_config(target))
    check_draft(draft_config(draft_name("d16", name), target), target)


def test_an_unknown_size_is_told():
    with pytest.raises(SdvarError, match="d17"):
        target_config("d17")
