"""The learning rate over a run."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from sdvar_jax.training.config import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: jax.Array, total: jax.Array) -> jax.Array:
    """The rate of one step.

    The length of the run is an argument and not compiled in: a run that ends by the clock learns
    its length on the way.

    Args:
      config: peak, warm-up and shape.
      step: number of the step, from 0, int32 scalar.
      total: steps of the whole run, float32 or int32 scalar.

    Returns:
      float32 scalar; (step + 1) / warmup_steps of the peak while warming up, ``final_share`` of
      it at step ``total``.
    """
    step = step.astype(jnp.float32)
    total = jnp.asarray(total, jnp.float32)
    warmup = float(config.warmup_steps)
    warm = jnp.minimum(1.0, (step + 1.0) / max(warmup, 1.0))
    passed = jnp.clip((step - warmup) / jnp.maximum(total - warmup, 1.0), 0.0, 1.0)
    if config.schedule == "constant":
        fall = jnp.ones_like(passed)
    elif config.schedule == "linear":
        fall = 1.0 - passed
    else:
        fall = 0.5 * (1.0 + jnp.cos(jnp.pi * passed))
    if config.schedule != "constant":
        fall = config.final_share + (1.0 - config.final_share) * fall
    return config.learning_rate * warm * fall
