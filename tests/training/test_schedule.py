"""The learning rate over a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdvar_jax.training import OptimizerConfig
from sdvar_jax.training.schedule import learning_rate


def rates(config, steps, total):
    return np.array([learning_rate(config, jnp.asarray(step), total) for step in steps])


def test_warm_up_is_linear_and_ends_at_the_peak():
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=4, schedule="constant")
    np.testing.assert_allclose(
        rates(config, range(6), 100), [0.125, 0.25, 0.375, 0.5, 0.5, 0.5], rtol=1e-6
    )


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.5), ("linear", 0.5)])
def test_the_rate_falls_from_the_peak_to_the_final_share(schedule, middle):
    config = OptimizerConfig(learning_rate=2.0, warmup_steps=10, schedule=schedule, final_share=0.1)
    got = rates(config, [10, 60, 110, 200], 110)
    np.testing.assert_allclose(got, [2.0, 2.0 * (0.1 + 0.9 * middle), 0.2, 0.2], rtol=1e-6)


def test_cosine_is_above_linear_in_the_first_half():
    steps = [20, 40]
    cosine = rates(OptimizerConfig(warmup_steps=0, schedule="cosine"), steps, 100)
    linear = rates(OptimizerConfig(warmup_steps=0, schedule="linear"), steps, 100)
    assert (cosine > linear).all()


def test_the_length_of_the_run_is_not_compiled_in():
    config = OptimizerConfig(warmup_steps=0)
    compiled = jax.jit(lambda step, total: learning_rate(config, step, total))
    first = compiled(jnp.asarray(50), jnp.asarray(100.0))
    second = compiled(jnp.asarray(50), jnp.asarray(50.0))
    np.testing.assert_allclose([first, second], [0.5e-3, 0.0], atol=1e-9)
    assert compiled._cache_size() == 1
