"""Random numbers fixed by (seed, stream, sample, position).

A position is the index in the whole token sequence, so it names scale and place. A sample's
numbers depend on nothing else: not on the batch it sits in, nor on which decoder asks, nor on how
often. Decoders that use the same noise make the same choices wherever their logits agree.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

# Independent streams for the uses that must not share numbers.
TOKEN_STREAM = 0
ACCEPT_STREAM = 1
RESIDUAL_STREAM = 2
SMOOTH_STREAM = 3


def _position_keys(
    seed: jax.Array, sample_ids: jax.Array, positions: jax.Array, stream: int
) -> jax.Array:
    """One key a sample and position, [batch, length]."""
    chex.assert_rank([sample_ids, positions], 1)
    base = jax.random.fold_in(jax.random.key(seed), stream)

    def of_sample(sample_id: jax.Array) -> jax.Array:
        key = jax.random.fold_in(base, sample_id)
        return jax.vmap(lambda position: jax.random.fold_in(key, position))(positions)

    return jax.vmap(of_sample)(sample_ids)


def gumbel_noise(
    seed: jax.Array,
    sample_ids: jax.Array,
    positions: jax.Array,
    vocab_size: int,
    stream: int = TOKEN_STREAM,
) -> jax.Array:
    """Gumbel noise g: argmax(logits + g) draws from softmax(logits).

    Args:
      seed: uint32 scalar.
      sample_ids: int32 [batch], the samples' numbers in the whole request.
      positions: int32 [length], positions in the token sequence.
      vocab_size: V.
      stream: which of the independent streams.

    Returns:
      float32 [batch, length, vocab].
    """
    keys = _position_keys(seed, sample_ids, positions, stream)
    draw = jax.vmap(jax.vmap(lambda key: jax.random.gumbel(key, (vocab_size,), jnp.float32)))
    return draw(keys)


def uniform_noise(
    seed: jax.Array, sample_ids: jax.Array, positions: jax.Array, stream: int = ACCEPT_STREAM
) -> jax.Array:
    """Uniform numbers in [0, 1), float32 [batch, length]; arguments as ``gumbel_noise``."""
    keys = _position_keys(seed, sample_ids, positions, stream)
    return jax.vmap(jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32)))(keys)
