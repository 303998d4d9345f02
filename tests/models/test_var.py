"""The VAR transformer reproduces the original's numbers."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_models import TINY_VARS, golden, golden_model

from sdvar_jax.models import VAR, KVCache, block_causal_mask


@pytest.mark.parametrize("name", TINY_VARS)
def test_teacher_forced_logits(name):
    arrays, model = golden(name), golden_model(name, TINY_VARS[name])
    got = nnx.jit(VAR.teacher_forced)(
        model, jnp.asarray(arrays["labels"]), jnp.asarray(arrays["x_BLCv_wo_first_l"])
    )
    chex.assert_shape(got, (2, 30, 64))
    np.testing.assert_allclose(got, arrays["logits"], atol=2e-4, rtol=0)


def test_cached_scales_give_the_teacher_forced_logits():
    """Scale by scale over the KV cache is the one block-causal forward."""
    name = "var_tiny_d3_l2"
    arrays, model = golden(name), golden_model(name, TINY_VARS[name])
    pyramid, labels = model.config.pyramid, jnp.asarray(arrays["labels"])
    inputs = jnp.asarray(arrays["x_BLCv_wo_first_l"])
    modulations = model.modulations(labels)
    cache = KVCache.make(model.config, 2, jnp.float32)
    for scale in range(pyramid.num_scales):
        place = pyramid.window(scale, scale + 1)
        if scale == 0:
            x = model.embed_first(modulations)
        else:
            x = model.embed_scale(inputs[:, place.start - 1 : place.stop - 1], scale)
        hidden, cache = nnx.jit(VAR.hidden, static_argnames="offset")(
            model, x, modulations, cache, offset=place.start
        )
        got = model.logits(hidden, modulations)
        np.testing.assert_allclose(got, arrays["logits"][:, place], atol=2e-4, rtol=0)


def test_block_causal_mask_sees_its_own_scale_and_all_before():
    pyramid = TINY_VARS["var_tiny_d2_l2"].pyramid
    mask = block_causal_mask(pyramid)
    for query in range(30):
        scale = np.searchsorted(pyramid.offsets, query, side="right") - 1
        assert mask[query].sum() == pyramid.offsets[scale + 1]
        assert mask[query, : pyramid.offsets[scale + 1]].all()


def test_window_mask_is_the_part_of_the_whole():
    pyramid = TINY_VARS["var_tiny_d2_l2"].pyramid
    whole = block_causal_mask(pyramid)
    np.testing.assert_array_equal(block_causal_mask(pyramid, 1, 3), whole[1:14, :14])
