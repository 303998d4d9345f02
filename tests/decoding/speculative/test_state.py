"""What the state tells of a batch."""

import functools

import jax.numpy as jnp
import pytest
from decoding_models import PYRAMID, tiny_models, tiny_request

from sdvar_jax.decoding.speculative.state import initial_state

SCALES = PYRAMID.num_scales


@functools.cache
def state_of(batch):
    models = tiny_models().merged()
    return initial_state(models.target.config, models.quantizer, tiny_request((0,) * batch))


@pytest.mark.parametrize(
    ("progress", "committed", "at_stake"),
    [
        ((0,), 0, [1, 1, 1]),
        ((2,), 2, [0, 0, 1]),
        ((1, 1, 1), 1, [0, 3, 3]),
        ((0, 2, 3), 0, [1, 1, 2]),
        ((3, 3), 3, [0, 0, 0]),
    ],
)
def test_a_scale_is_at_stake_for_the_samples_that_have_not_committed_it(
    progress, committed, at_stake
):
    state = state_of(len(progress)).replace(progress=jnp.asarray(progress, jnp.int32))
    assert state.committed == committed
    assert state.at_stake.tolist() == at_stake
    assert state.at_stake.dtype == jnp.int32
