"""Acceptance by construction: the share that passes is the share that was planned."""

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.planned_acceptance import PlannedAcceptance
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.speculative.acceptance import Check
from sdvar_jax.sampling import uniform_noise

RULE = PlannedAcceptance()


def passes(uniform, threshold):
    """Whether scales of one sample's uniform numbers [samples, tokens] pass."""
    tokens = jnp.zeros(uniform.shape, jnp.int32)
    logits = jnp.zeros((*uniform.shape, 2))
    check = Check(tokens, logits, logits, tokens, uniform=uniform)
    total = jnp.sum(RULE.score(check), axis=1)
    return np.asarray(RULE.passes(total, uniform.shape[1], jnp.float32(threshold)))


def uniform(samples, tokens):
    return np.random.default_rng(7).random((samples, tokens), np.float32)


@pytest.mark.parametrize("tokens", [1, 4, 49])
@pytest.mark.parametrize("threshold", [0.25, 0.9])
def test_passes_the_planned_share_of_scales_whatever_their_size(tokens, threshold):
    share = passes(uniform(4000, tokens), threshold).mean()
    assert share == pytest.approx(threshold, abs=0.03)


def test_one_passes_all_and_zero_none():
    numbers = jnp.asarray([[0.0], [1e-9], [0.5], [1.0 - 1e-7]])
    assert passes(numbers, 1.0).all()
    assert not passes(numbers, 0.0).any()


def test_a_higher_plan_keeps_what_a_lower_one_passes():
    numbers = uniform(500, 9)
    low, high = passes(numbers, 0.3), passes(numbers, 0.6)
    assert (high | ~low).all()
    assert high.sum() > low.sum()


def test_depends_on_the_seed_and_not_on_the_batch():
    def drawn(samples, seed):
        return uniform_noise(jnp.uint32(seed), jnp.arange(samples), jnp.arange(4))

    numbers = drawn(64, 0)
    np.testing.assert_array_equal(passes(drawn(8, 0), 0.5), passes(numbers, 0.5)[:8])
    assert (passes(drawn(64, 1), 0.5) != passes(numbers, 0.5)).any()


def test_serves_as_a_rule_of_speculative_decoding():
    decoder = Speculative(gamma=3, accept=RULE, commit="draft")
    assert not decoder.accept.lossless
    assert decoder.accept.check_threshold(0.4) == 0.4
