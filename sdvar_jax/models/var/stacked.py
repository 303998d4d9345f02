"""All blocks as one, run in a loop: the same numbers from a program a depth-th the size.

Compiling, and reading a compiled program back from the cache, take a good part of the time to the
first picture on a CPU; a loop over the blocks is compiled once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sdvar_jax.models.var.block import Block
from sdvar_jax.models.var.cache import KVCache


class StackedBlocks(nnx.Module):
    """The blocks of a VAR, each parameter with a leading axis of the depth."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        graphs, states = zip(*(nnx.split(block) for block in blocks), strict=True)
        # The blocks are alike but for their weights.
        self.block = nnx.merge(graphs[0], jax.tree.map(lambda *rows: jnp.stack(rows), *states))

    def modulations(self, activated: jax.Array, shared: jax.Array | None) -> jax.Array:
        """AdaLN vectors of all blocks, [batch, depth, 6, width]; see ``Block.modulation``."""
        graph, states = nnx.split(self.block)

        def one(_: None, state: Any) -> tuple[None, jax.Array]:
            return None, nnx.merge(graph, state).modulation(activated, shared)

        _, modulations = jax.lax.scan(one, None, states)  # [depth, batch, 6, width]
        return jnp.swapaxes(modulations, 0, 1)

    def hidden(
        self,
        x: jax.Array,
        modulations: jax.Array,
        cache: KVCache,
        offset: int,
        mask: jax.Array | None,
    ) -> tuple[jax.Array, KVCache]:
        """Runs the blocks over a window of positions, see ``VAR.hidden``.

        Args:
          x: [batch, length, width].
          modulations: as ``modulations`` gives them.
          cache: a stacked one.
          offset: position of the window's first token.
          mask: bool [length, keys]; None where every query sees every key.
        """
        graph, states = nnx.split(self.block)
        rows, stop = x.shape[0], offset + x.shape[1]
        row_shape = cache.keys[0].shape[3:]

        def one(carry: Any, row: Any) -> tuple[Any, None]:
            x, keys, values = carry
            state, modulation, i = row
            block = nnx.merge(graph, state)
            q, k, v = block.project(x, modulation)
            keys = jax.lax.dynamic_update_slice(keys, k[None], (i, 0, offset, 0, 0))
            values = jax.lax.dynamic_update_slice(values, v[None], (i, 0, offset, 0, 0))
            seen_keys, seen_values = (
                jax.lax.dynamic_slice(array, (i, 0, 0, 0, 0), (1, rows, stop, *row_shape))[0]
                for array in (keys, values)
            )
            attended = block.attn.attend(q, seen_keys, seen_values, mask)
            return (block.finish(x, modulation, attended), keys, values), None

        depth = modulations.shape[1]
        over = (states, jnp.swapaxes(modulations, 0, 1), jnp.arange(depth))
        (x, keys, values), _ = jax.lax.scan(one, (x, cache.keys[0], cache.values[0]), over)
        return x, KVCache(keys=(keys,), values=(values,))
