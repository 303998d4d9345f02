"""The teacher-forced forward of all scales as training runs it.

The same numbers as ``VAR.teacher_forced``, with attention that leaves the masked part out and
with a choice of what is kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Layout, with_layout_constraint

from sdvar_jax.config import ScalePyramid
from sdvar_jax.models import VAR, Modulations
from sdvar_jax.models.var.block import Block
from sdvar_jax.training.var.attention import pyramid_attention

Keeps = tuple[tuple[jax.Array, jax.Array], ...]


def _block(
    block: Block,
    pyramid: ScalePyramid,
    attention: str,
    x: jax.Array,
    modulation: jax.Array,
    keep: tuple[jax.Array, jax.Array] | None,
) -> jax.Array:
    config = block.config
    q, k, v = block.project(x, modulation)
    if not config.attn_l2_norm:
        q = q * jnp.asarray(0.25 * config.head_dim**-0.5, q.dtype)
    out = pyramid_attention(q, k, v, pyramid, attention, block.dtypes.precision)
    return block.finish(x, modulation, block.attn.proj(out.reshape(x.shape)), keep)


def _in_plain_order(x: jax.Array) -> jax.Array:
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


@jax.custom_vjp
def plain_order(x: jax.Array) -> jax.Array:
    """The array itself; it and its gradient keep the plain order of their axes in memory.

    Left alone, XLA lays activations [batch, length, width] out with the positions last, because
    the gradients of AdaLN vectors are sums over positions, and copies them back and forth.
    """
    return _in_plain_order(x)


plain_order.defvjp(
    lambda x: (_in_plain_order(x), None), lambda _, gradient: (_in_plain_order(gradient),)
)


def embed_all(
    model: VAR, modulations: Modulations, inputs: jax.Array, pyramid: ScalePyramid
) -> jax.Array:
    """Embedded inputs of all scales of ``pyramid``, [batch, total_length, width]."""
    first = pyramid.first_length
    parts = [model.embed_first(modulations)]
    for scale in range(1, pyramid.num_scales):
        window = pyramid.window(scale, scale + 1)
        scale_inputs = inputs[:, window.start - first : window.stop - first]
        parts.append(model.embed_scale(scale_inputs, scale))
    return jnp.concatenate(parts, axis=1)


def all_logits(
    model: VAR,
    labels: jax.Array,
    inputs: jax.Array,
    *,
    attention: str = "xla",
    keeps: Keeps | None = None,
    remat: bool = False,
    scan: bool = False,
    scales: int | None = None,
) -> jax.Array:
    """Logits of all scales from the inputs given.

    Args:
      model: the VAR.
      labels: int [batch]; ``config.unconditional_label`` for none.
      inputs: ``Quantizer.teacher_forcing_inputs``, [batch, total - first, latent_channels].
      attention: "xla" or "cudnn".
      keeps: stochastic depth, see ``drop_path``.
      remat: keep matrix products alone for the backward pass.
      scan: compile one block and run it ``depth`` times; compiles much faster.
      scales: run the first so many alone, as if the pyramid ended there: a token sees no later
        scale, so their logits are the same; None for all.

    Returns:
      float32 [batch, total_length, vocab], total_length of the scales that were run.
    """
    config = model.config
    pyramid = config.pyramid if scales is None else config.pyramid.first_scales(scales)
    length = pyramid.total_length - pyramid.first_length
    chex.assert_shape(inputs, (labels.shape[0], length, config.latent_channels))
    modulations = model.modulations(labels)
    x = embed_all(model, modulations, inputs, pyramid)
    graphs, states = zip(*(nnx.split(block) for block in model.blocks), strict=True)

    def run(state: Any, x: jax.Array, modulation: jax.Array, keep: Any) -> jax.Array:
        # The blocks are alike but for their weights.
        x, modulation = plain_order(x), plain_order(modulation)
        return _block(nnx.merge(graphs[0], state), pyramid, attention, x, modulation, keep)

    if remat:
        run = jax.checkpoint(run, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    rows = list(zip(states, modulations.blocks, keeps or (None,) * config.depth, strict=True))
    if scan:
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)
        x, _ = jax.lax.scan(lambda x, row: (run(row[0], x, *row[1:]), None), x, stacked)
    else:
        for state, modulation, keep in rows:
            x = run(state, x, modulation, keep)
    return model.logits(x, modulations)


def drop_path(rate: float, depth: int, batch: int, key: jax.Array) -> Keeps | None:
    """Stochastic depth: factors on each block's two branches, growing linearly with depth.

    Args:
      rate: of the last block; 0 gives None.
      depth: blocks.
      batch: pictures; each draws for itself.
      key: of the draw.

    Returns:
      For each block two arrays [batch, 1, 1] that are 0 or 1/(1 - its rate).
    """
    if rate == 0.0:
        return None
    rates = [rate * i / max(depth - 1, 1) for i in range(depth)]
    draws = jax.random.uniform(key, (depth, 2, batch, 1, 1))
    factors = [(draws[i] >= rates[i]) / (1.0 - rates[i]) for i in range(depth)]
    return tuple((factor[0], factor[1]) for factor in factors)
