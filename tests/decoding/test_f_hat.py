"""f_hat is a function of the tokens alone, and one place writes it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import PYRAMID, QUICK_COMPILE, VOCAB, tiny_quantizer

from sdvar_jax.decoding.f_hat import NO_TOKEN, extend, initial_f_hats

SCALES = PYRAMID.num_scales
BATCH = 2


@functools.partial(jax.jit, static_argnames="scale", compiler_options=QUICK_COMPILE)
def extended(f_hats, tokens, scale):
    return extend(tiny_quantizer(), f_hats, tokens, scale)


def token_maps(seed=0):
    random = np.random.default_rng(seed)
    return tuple(
        random.integers(0, VOCAB, (BATCH, length)).astype(np.int32) for length in PYRAMID.lengths
    )


def of_tokens(maps):
    f_hats = initial_f_hats(tiny_quantizer(), BATCH)
    for scale, tokens in enumerate(maps):
        f_hats = extended(f_hats, tokens, scale)
    return f_hats


def test_it_is_what_the_quantizer_makes_of_the_tokens():
    maps = token_maps()
    f_hats = of_tokens(maps)
    assert f_hats.shape[:2] == (SCALES + 1, BATCH)
    np.testing.assert_array_equal(f_hats[0], 0)
    np.testing.assert_allclose(f_hats[1:], tiny_quantizer().f_hats(maps), atol=1e-5)


def test_adding_a_scale_twice_adds_it_once():
    """The second update of one scale overwrites the first; it does not pile up."""
    maps = token_maps()
    f_hats = of_tokens(maps)
    for scale in range(SCALES):
        np.testing.assert_array_equal(extended(f_hats, maps[scale], scale), f_hats)


def test_other_tokens_at_a_scale_leave_no_trace_of_the_first():
    rejected, committed = token_maps(0), token_maps(1)
    f_hats = of_tokens(rejected)
    for scale, tokens in enumerate(committed):
        f_hats = extended(f_hats, tokens, scale)
    np.testing.assert_array_equal(f_hats, of_tokens(committed))


def test_only_the_entry_behind_the_scale_is_written():
    f_hats = of_tokens(token_maps(0))
    after = extended(f_hats, token_maps(1)[1], 1)
    changed = np.any(np.asarray(after != f_hats), axis=(1, 2, 3, 4))
    assert changed.tolist() == [False, False, True, False]


def test_a_sample_without_proposals_adds_nothing():
    maps = token_maps()
    tokens = jnp.asarray(maps[1]).at[0].set(NO_TOKEN)
    f_hats = extended(extended(of_tokens(maps), maps[0], 0), tokens, 1)
    np.testing.assert_array_equal(f_hats[2, 0], f_hats[1, 0])
    np.testing.assert_array_equal(f_hats[2, 1], of_tokens(maps)[2, 1])


def test_tokens_of_another_scale_are_noticed():
    with pytest.raises(AssertionError):
        extend(tiny_quantizer(), initial_f_hats(tiny_quantizer(), BATCH), token_maps()[2], 1)
