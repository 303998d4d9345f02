"""The codebook's use, and bringing unused entries back.

Training lasts minutes, so an entry that nothing is nearest to would stay unused to the end: it
gets no gradient. Such entries are moved onto vectors that were to be quantized, drawn from all
scales alike.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from sdvar_jax.training.state import Params, TrainState
from sdvar_jax.training.vqvae.config import RevivalConfig

CODEBOOK = "quantizer.codebook"


def candidates(rests: tuple[jax.Array, ...], vocab_size: int, key: jax.Array) -> jax.Array:
    """Vectors that were to be quantized, as many from each scale.

    Args:
      rests: of each scale [n_k, channels].
      vocab_size: how many are wanted.
      key: of the draw.

    Returns:
      float32 [vocab, channels], in random order.
    """
    each = -(-vocab_size // len(rests))
    keys = jax.random.split(key, len(rests) + 1)
    drawn = [
        rest[jax.random.randint(keys[scale], (each,), 0, rest.shape[0])]
        for scale, rest in enumerate(rests)
    ]
    return jax.random.permutation(keys[-1], jnp.concatenate(drawn))[:vocab_size]


def perplexity(use: jax.Array) -> jax.Array:
    """Effective number of entries: exp of the entropy of their use [vocab], scalar."""
    share = use / jnp.maximum(jnp.sum(use), 1e-9)
    return jnp.exp(-jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12))))


def revive(
    config: RevivalConfig, state: TrainState, replacements: jax.Array, total: jax.Array
) -> TrainState:
    """Re-seeds entries that are hardly used, where it is time to.

    Args:
      config: when and which.
      state: ``extra`` holds the moving average of use, float32 [vocab].
      replacements: float32 [vocab, channels].
      total: steps of the whole run.

    Returns:
      The state with the entries moved in the weights and their average, and their use taken as
      average so that they get time to find their place.
    """
    if config.every == 0:
        return state
    chex.assert_equal_shape([replacements, state.params[CODEBOOK]])
    made = state.step  # steps made, the one just done included
    due = (made % config.every == 1 % config.every) & (made <= config.until * total)
    unused = due & (state.extra < config.below)  # [vocab]

    def moved(params: Params) -> Params:
        codebook = jnp.where(unused[:, None], replacements, params[CODEBOOK])
        return {**params, CODEBOOK: codebook}

    return state.replace(
        params=moved(state.params),
        ema=None if state.ema is None else moved(state.ema),
        extra=jnp.where(unused, jnp.mean(state.extra), state.extra),
    )
