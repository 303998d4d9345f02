"""The forward of training gives the model's own numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from training_models import PYRAMID, VAR_CONFIG, lively_var

from sdvar_jax.config import PYRAMID_256, ScalePyramid
from sdvar_jax.models import VAR, block_causal_mask
from sdvar_jax.training.var.attention import (
    choose_attention,
    even_mask,
    pyramid_attention,
    query_groups,
)
from sdvar_jax.training.var.forward import all_logits, drop_path


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    labels = jnp.asarray([0, 1, 2])
    return labels, jnp.asarray(rng.standard_normal((3, PYRAMID.total_length - 1, 4)), jnp.float32)


@pytest.mark.parametrize(
    ("normalised", "shared", "remat", "scan"),
    [(True, False, False, False), (False, True, True, False), (True, True, True, True)],
)
def test_logits_are_those_of_the_model(case, normalised, shared, remat, scan):
    config = dataclasses.replace(VAR_CONFIG, attn_l2_norm=normalised, shared_aln=shared)
    model = lively_var(0, config)
    wanted = nnx.jit(VAR.teacher_forced)(model, *case)
    got = nnx.jit(lambda model: all_logits(model, *case, remat=remat, scan=scan))(model)
    np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_stochastic_depth_is_that_of_the_model(case):
    model = lively_var(0)
    keeps = drop_path(0.5, 2, 3, jax.random.key(1))
    wanted = nnx.jit(VAR.teacher_forced)(model, *case, keeps)
    got = nnx.jit(lambda model: all_logits(model, *case, keeps=keeps, scan=True))(model)
    np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_keeping_less_for_the_backward_pass_does_not_change_the_gradient(case):
    graph, state = nnx.split(lively_var(0))

    def gradient(remat):
        def value(state):
            logits = all_logits(nnx.merge(graph, state), *case, remat=remat, scan=True)
            return jnp.mean(logits**2)

        return jax.tree.leaves(jax.jit(jax.grad(value))(state))

    for kept, made_again in zip(gradient(False), gradient(True), strict=True):
        np.testing.assert_allclose(made_again, kept, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pyramid", [PYRAMID, ScalePyramid((1, 2, 3, 4, 6))])
def test_attention_without_the_masked_part_is_masked_attention(pyramid):
    rng = np.random.default_rng(0)
    shape = (1, pyramid.total_length, 2, 4)
    q, k, v = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(3))
    mask = jnp.asarray(block_causal_mask(pyramid))[None, None]
    wanted = jax.jit(lambda: jax.nn.dot_product_attention(q, k, v, mask=mask, scale=1.0))()
    got = jax.jit(lambda: pyramid_attention(q, k, v, pyramid, "xla"))()
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_query_groups_cover_all_scales_once():
    groups = query_groups(PYRAMID_256)
    assert groups == ((0, 7), (7, 8), (8, 9), (9, 10))
    scales = [scale for start, stop in groups for scale in range(start, stop)]
    assert scales == list(range(10))


def test_without_a_gpu_attention_is_xlas():
    assert choose_attention("auto", PYRAMID, 16, np.dtype(jnp.bfloat16)) == "xla"


def test_branches_are_dropped_at_a_rate_that_grows_with_depth_and_keep_their_mean():
    keeps = drop_path(0.4, 3, 4000, jax.random.key(0))
    assert len(keeps) == 3
    for rate, (first, second) in zip([0.0, 0.2, 0.4], keeps, strict=True):
        for factor in (first, second):
            assert factor.shape == (4000, 1, 1)
            assert float(jnp.mean(factor == 0)) == pytest.approx(rate, abs=0.03)
            assert float(jnp.mean(factor)) == pytest.approx(1.0, abs=0.06)
    assert drop_path(0.0, 3, 4, jax.random.key(0)) is None


@pytest.mark.parametrize("scan", [False, True])
def test_the_first_scales_alone_have_the_logits_they_have_among_all(case, scan):
    labels, inputs = case
    model = lively_var(0)
    stop = PYRAMID.window(0, 2).stop
    wanted = nnx.jit(VAR.teacher_forced)(model, labels, inputs)[:, :stop]
    got = nnx.jit(
        lambda model: all_logits(model, labels, inputs[:, : stop - 1], scan=scan, scales=2)
    )(model)
    np.testing.assert_allclose(got, wanted, atol=2e-5)


@pytest.mark.parametrize("scales", [7, 8, 10])
def test_an_odd_length_gets_a_position_that_nobody_sees(scales):
    pyramid = PYRAMID_256.first_scales(scales)
    length = pyramid.total_length
    mask = even_mask(pyramid)
    assert mask.shape == (length + length % 2,) * 2
    np.testing.assert_array_equal(mask[:length, :length], block_causal_mask(pyramid))
    assert not mask[:length, length:].any()
    assert mask.any(axis=1).all()
