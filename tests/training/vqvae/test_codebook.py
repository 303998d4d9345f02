"""Bringing unused codebook entries back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdvar_jax.training import OptimizerConfig, RevivalConfig
from sdvar_jax.training.optimizer import make_optimizer
from sdvar_jax.training.state import make_state
from sdvar_jax.training.vqvae.codebook import CODEBOOK, candidates, perplexity, revive

CONFIG = RevivalConfig(every=10, below=0.5, until=0.5)
REPLACEMENTS = jnp.full((4, 2), 7.0)
USE = jnp.array([5.0, 0.1, 3.0, 0.0])


def state_at(step):
    params = {CODEBOOK: jnp.zeros((4, 2)), "other": jnp.zeros(())}
    state = make_state(params, make_optimizer(OptimizerConfig()), ema=True, extra=USE)
    return state.replace(step=jnp.asarray(step))


def moved(step, config=CONFIG):
    state = revive(config, state_at(step), REPLACEMENTS, jnp.asarray(100.0))
    return np.asarray(state.params[CODEBOOK][:, 0] == 7.0), state


def test_only_unused_entries_move_in_the_weights_and_their_average():
    where, state = moved(11)
    np.testing.assert_array_equal(where, [False, True, False, True])
    np.testing.assert_array_equal(state.ema[CODEBOOK], state.params[CODEBOOK])


def test_moved_entries_get_time_to_find_their_place():
    _, state = moved(11)
    np.testing.assert_allclose(state.extra, [5.0, 2.025, 3.0, 2.025])


@pytest.mark.parametrize(("step", "due"), [(1, True), (5, False), (41, True), (61, False)])
def test_entries_move_every_so_often_until_a_share_of_the_run(step, due):
    assert moved(step)[0].any() == due


def test_revival_can_be_off_or_at_every_step():
    assert not moved(11, RevivalConfig(every=0))[0].any()
    assert moved(12, RevivalConfig(every=1))[0].any()


def test_candidates_come_from_all_scales_alike():
    rests = (jnp.zeros((2, 3)), jnp.ones((8, 3)), jnp.full((500, 3), 2.0))
    drawn = candidates(rests, 30, jax.random.key(0))
    np.testing.assert_array_equal(np.bincount(np.asarray(drawn[:, 0], int)), [10, 10, 10])


def test_perplexity_counts_entries_used_alike():
    assert float(perplexity(jnp.array([2.0, 2.0, 0.0, 2.0]))) == pytest.approx(3.0)
    assert float(perplexity(jnp.array([9.0, 0.0]))) == pytest.approx(1.0)
