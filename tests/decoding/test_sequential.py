"""Scale-by-scale decoding reproduces the original's greedy runs."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import QUICK_COMPILE, decode, tiny_models, tiny_request
from flax import nnx
from golden_models import TINY_VARS, TINY_VQVAE, golden, golden_model, nhwc

from sdvar_jax.decoding import ForcedTokens, TargetOnly, TokenSampling, make_request
from sdvar_jax.decoding.f_hat import initial_f_hats
from sdvar_jax.decoding.sequential import decode_scale
from sdvar_jax.decoding.window import class_modulations
from sdvar_jax.models import KVCache
from sdvar_jax.sampling import SamplingConfig

TOLERANCE = 2e-4


@functools.partial(jax.jit, static_argnames=("graphs", "sampling"), compiler_options=QUICK_COMPILE)
def greedy(graphs, states, request, sampling):
    """Logits and tokens of every scale, and f_hat after the last."""
    model, quantizer = (nnx.merge(g, s) for g, s in zip(graphs, states, strict=True))
    modulations = class_modulations(model, request, sampling)
    cache = KVCache.make(model.config, modulations.condition.shape[0], jnp.float32)
    f_hats = initial_f_hats(quantizer, request.batch)
    steps = []
    for scale in range(model.config.pyramid.num_scales):
        logits, tokens, f_hats, cache = decode_scale(
            model, quantizer, modulations, f_hats, cache, scale, request, sampling
        )
        steps.append((logits, tokens))
    return steps, f_hats[-1]


@functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
def image(f_hat):
    return (golden_model("vqvae_tiny", TINY_VQVAE).decode(f_hat) + 1) / 2


def assert_golden(name, cfg, sampling):
    arrays = golden(name)
    model, vqvae = golden_model(name, TINY_VARS[name]), golden_model("vqvae_tiny", TINY_VQVAE)
    config = SamplingConfig(cfg=cfg, top_k=1, top_p=0.0)
    request = make_request(np.array([1, 7]), 0, config, model.config.pyramid)
    graphs, states = zip(*(nnx.split(m) for m in (model, vqvae.quantizer)), strict=True)
    steps, f_hat = greedy(graphs, states, request, sampling)
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
    np.testing.assert_allclose(image(f_hat), nhwc(arrays[f"ar_cfg{cfg}_img"]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("cfg", [0.0, 1.5, 4.0])
@pytest.mark.parametrize("name", TINY_VARS)
def test_greedy_decoding(name, cfg):
    # Guidance is compiled in, so that one program serves all strengths; 0 is one of them.
    assert_golden(name, cfg, TokenSampling(guided_until=4))


def test_greedy_decoding_without_the_unconditional_half():
    assert_golden("var_tiny_d2_l2", 0.0, TokenSampling(guided_until=0))


def smooth(seed=0, **options):
    sampling = TokenSampling(guided_until=3, more_smooth=True)
    return decode(TargetOnly(), tiny_models(), tiny_request((0, 1, 2), seed, **options), sampling)


def test_more_smooth_feeds_mixtures_on():
    made, plain = smooth(), decode(TargetOnly(), tiny_models(), tiny_request((0, 1, 2)))
    # The first scale is drawn before anything is mixed; f_hat after it already differs.
    np.testing.assert_array_equal(made.tokens[:, :1], plain.tokens[:, :1])
    assert np.abs(made.f_hats[1] - plain.f_hats[1]).max() > 1e-3
    np.testing.assert_array_equal(smooth().tokens, made.tokens)


def test_more_smooth_never_smooths_tokens_given_from_outside():
    plain = decode(TargetOnly(), tiny_models(), tiny_request((0, 1, 2)))
    forced = ForcedTokens(tokens=plain.tokens, forced=np.ones(plain.tokens.shape, bool))
    made = smooth(forced=forced)
    np.testing.assert_array_equal(made.tokens, plain.tokens)
    np.testing.assert_allclose(made.f_hats, plain.f_hats, atol=1e-5)
