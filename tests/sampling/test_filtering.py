"""Top-k and top-p keep exactly the original's sets, by sorting, by searching and in the kernel."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_models import golden

from sdvar_jax.sampling.filtering import METHODS
from sdvar_jax.sampling.filtering import filter_logits as _filter_logits

filter_logits = jax.jit(_filter_logits, static_argnames="method")

CASES = [key for key in golden("filter") if key != "logits"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("key", CASES)
def test_the_originals_sets(key, method):
    top_k, top_p = key.removeprefix("filtered_k").split("_p")
    got = filter_logits(jnp.asarray(golden("filter")["logits"]), int(top_k), float(top_p), method)
    np.testing.assert_array_equal(got, golden("filter")[key])


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    seed=st.integers(0, 2**31 - 1),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    top_k=st.integers(0, 60),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.96, 1.0]),
)
def test_searching_finds_what_sorting_finds(seed, spread, top_k, top_p):
    logits = jnp.asarray(
        (np.random.RandomState(seed).standard_normal((3, 2, 64)) * spread).astype(np.float32)
    )
    by_sort, *others = (np.asarray(filter_logits(logits, top_k, top_p, m)) for m in METHODS)
    for other in others:
        np.testing.assert_array_equal(by_sort, other)


@pytest.mark.parametrize("method", METHODS)
def test_the_most_likely_token_always_stays(method):
    logits = jnp.asarray([[0.0, 1.0, 2.0]], jnp.float32)
    got = np.asarray(filter_logits(logits, 0, 1e-9, method))
    np.testing.assert_array_equal(np.isfinite(got), [[False, False, True]])


@pytest.mark.parametrize("method", METHODS)
def test_top_k_beyond_the_vocabulary_keeps_all(method):
    logits = jnp.asarray([[0.0, 1.0, 2.0]], jnp.float32)
    np.testing.assert_array_equal(filter_logits(logits, 900, 0.0, method), logits)
