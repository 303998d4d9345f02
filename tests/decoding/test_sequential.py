"""Scale-by-scale decoding reproduces the original's greedy runs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_models import TINY_VARS, TINY_VQVAE, golden, golden_model, nhwc

from sdvar_jax.decoding import TokenSampling, make_request
from sdvar_jax.decoding.f_hat import initial_f_hats
from sdvar_jax.decoding.sequential import decode_scale
from sdvar_jax.decoding.window import class_modulations
from sdvar_jax.models import KVCache
from sdvar_jax.sampling import SamplingConfig

TOLERANCE = 2e-4


@functools.partial(jax.jit, static_argnames=("graphs", "sampling"))
def greedy(graphs, states, request, sampling):
    model, vqvae = (nnx.merge(g, s) for g, s in zip(graphs, states, strict=True))
    modulations = class_modulations(model, request, sampling)
    cache = KVCache.make(model.config, modulations.condition.shape[0], jnp.float32)
    f_hats = initial_f_hats(vqvae.quantizer, request.batch)
    steps = []
    for scale in range(model.config.pyramid.num_scales):
        logits, tokens, f_hats, cache = decode_scale(
            model, vqvae.quantizer, modulations, f_hats, cache, scale, request, sampling
        )
        steps.append((logits, tokens))
    return steps, vqvae.decode(f_hats[-1])


@pytest.mark.parametrize("cfg", [0.0, 1.5, 4.0])
@pytest.mark.parametrize("name", TINY_VARS)
def test_greedy_decoding(name, cfg):
    arrays = golden(name)
    model, vqvae = golden_model(name, TINY_VARS[name]), golden_model("vqvae_tiny", TINY_VQVAE)
    config = SamplingConfig(cfg=cfg, top_k=1, top_p=0.0)
    request = make_request(np.array([1, 7]), 0, config, model.config.pyramid)
    graphs, states = zip(*(nnx.split(m) for m in (model, vqvae)), strict=True)
    steps, image = greedy(graphs, states, request, TokenSampling.of(config, 4))
    for scale, (logits, tokens) in enumerate(steps):
        wanted = arrays[f"ar_cfg{cfg}_logits_{scale}"]
        chex.assert_shape(logits, wanted.shape)
        np.testing.assert_allclose(logits, wanted, atol=TOLERANCE, rtol=0)
        top_two = np.sort(wanted, axis=-1)[..., -2:]
        certain = top_two[..., 1] - top_two[..., 0] > 2 * TOLERANCE
        assert certain.mean() > 0.95
        np.testing.assert_array_equal(
            np.asarray(tokens)[certain], arrays[f"ar_cfg{cfg}_tok_{scale}"][certain]
        )
    np.testing.assert_allclose((image + 1) / 2, nhwc(arrays[f"ar_cfg{cfg}_img"]), atol=1e-3, rtol=0)
