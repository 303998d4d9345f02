"""The VAR transformer: predicts each token map from those before it (VAR, section 3.2)."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from sdvar_jax.config import FLOAT32, DTypePolicy, VARConfig
from sdvar_jax.models.kernels import INTERPRETED, OWN, REFERENCE
from sdvar_jax.models.var.block import Block, Projection, layer_norm
from sdvar_jax.models.var.cache import KVCache
from sdvar_jax.models.var.initializers import (
    ADALN_GAIN,
    HEAD_GAIN,
    linear,
    modulation_init,
    weight_init,
)
from sdvar_jax.models.var.masks import block_causal_mask
from sdvar_jax.models.var.stacked import StackedBlocks

# One function a window, so that all blocks are traced and lowered as one (as in ``fused``).
_block_over_cache = jax.jit(Block.__call__, static_argnames=("offset",))


CONDITIONING = ("class_embed", "shared_ada_lin", "head_ada_lin", "ada_lin", "ada_gss")
"""Parameters and layers that ``VAR.modulations`` reads, and nothing else does."""


class Modulations(struct.PyTreeNode):
    """Everything that depends on the class alone, computed once an image.

    Attributes:
      condition: class embedding [batch, width].
      blocks: AdaLN vectors of each block [batch, 6, width]; or of all, [batch, depth, 6, width],
        of stacked blocks.
      head: scale and shift before the head, float32 [batch, 2, width].
    """

    condition: jax.Array
    blocks: tuple[jax.Array, ...]
    head: jax.Array


class VAR(nnx.Module):
    """Next-scale prediction transformer.

    The input at scale k is not the tokens of scale k but f_hat after scale k-1, area-resized to
    the side of scale k; the tokens of a scale are conditionally independent given the scales
    before it.

    Attributes:
      config: its shapes.
      dtypes: dtypes of parameters and arithmetic; the head is always in float32, but that the fused
        kernels round its operands to the compute dtype.
      kernels: what runs the blocks over a KV cache, see ``kernels``.
    """

    def __init__(self, config: VARConfig, dtypes: DTypePolicy = FLOAT32, *, rngs: nnx.Rngs) -> None:
        self.config = config
        self.dtypes = dtypes
        self.kernels = REFERENCE
        width, pyramid, dtype = config.width, config.pyramid, dtypes.param_dtype
        init = weight_init(width)
        self.class_embed = nnx.Param(
            init(rngs.params(), (config.num_classes + 1, width), dtype)
        )  # [classes + 1, width]
        self.pos_start = nnx.Param(init(rngs.params(), (pyramid.first_length, width), dtype))
        self.pos_embed = nnx.Param(
            init(rngs.params(), (pyramid.total_length, width), dtype)
        )  # [total_length, width]
        self.scale_embed = nnx.Param(
            init(rngs.params(), (pyramid.num_scales, width), dtype)
        )  # [num_scales, width]
        self.word_embed = linear(config.latent_channels, width, dtypes, rngs, width_scale=width)
        self.shared_ada_lin = (
            nnx.Linear(
                width,
                6 * width,
                dtype=dtypes.compute_dtype,
                param_dtype=dtype,
                precision=dtypes.precision,
                kernel_init=modulation_init(width),
                rngs=rngs,
            )
            if config.shared_aln
            else None
        )
        self.blocks: Any = nnx.List(Block(config, dtypes, rngs=rngs) for _ in range(config.depth))
        self.head_ada_lin = linear(
            width, 2 * width, dtypes, rngs, width_scale=width, gain=ADALN_GAIN
        )
        self.head_kernel = nnx.Param(
            weight_init(width, HEAD_GAIN)(rngs.params(), (width, config.vocab_size), dtype)
        )  # [width, vocab]
        self.head_bias = nnx.Param(jnp.zeros((config.vocab_size,), dtype))

    def modulations(self, labels: jax.Array) -> Modulations:
        """The class embedding and all AdaLN vectors of ``labels`` (int [batch])."""
        chex.assert_rank(labels, 1)
        condition = self.class_embed[...][labels].astype(self.dtypes.compute_dtype)
        activated = jax.nn.silu(condition)
        project = self._projection()
        shared = None
        if self.shared_ada_lin is not None:
            shared = project(self.shared_ada_lin, activated).reshape(-1, 6, self.config.width)
        head = project(self.head_ada_lin, activated).astype(jnp.float32)
        blocks = (
            (self.blocks.modulations(activated, shared),)
            if isinstance(self.blocks, StackedBlocks)
            else tuple(block.modulation(activated, shared, project) for block in self.blocks)
        )
        return Modulations(
            condition=condition,
            blocks=blocks,
            head=head.reshape(-1, 2, self.config.width),
        )

    @property
    def _fused(self) -> bool:
        """Whether the fused kernels run, on a GPU or interpreted."""
        return self.kernels in OWN

    def _projection(self) -> Projection:
        """What runs the AdaLN projections, whose rows are few."""
        if not self._fused:
            return nnx.Linear.__call__
        from sdvar_jax.models.var.fused import few_rows_linear

        return functools.partial(few_rows_linear, interpret=self.kernels == INTERPRETED)

    def embed_first(self, modulations: Modulations) -> jax.Array:
        """Input of the first scale: the class embedding with its positions, [batch, 1, width]."""
        length = self.config.pyramid.first_length
        dtype = self.dtypes.compute_dtype
        place = self.pos_start[...] + self.scale_embed[...][:1] + self.pos_embed[...][:length]
        return modulations.condition[:, None] + place.astype(dtype)[None]

    def embed_scale(self, inputs: jax.Array, scale: int) -> jax.Array:
        """Input of a later scale.

        Args:
          inputs: f_hat of the scale before, resized, [batch, side**2, latent_channels].
          scale: 0-based scale, at least 1.

        Returns:
          [batch, side**2, width] in the compute dtype.
        """
        config = self.config
        chex.assert_shape(inputs, (None, config.pyramid.lengths[scale], config.latent_channels))
        place = (
            self.scale_embed[...][scale][None]
            + self.pos_embed[...][config.pyramid.window(scale, scale + 1)]
        )
        embedded = self.word_embed(inputs.astype(self.dtypes.compute_dtype))
        return embedded + place.astype(self.dtypes.compute_dtype)[None]

    def make_cache(self, rows: int, scales: int | None = None) -> KVCache:
        """An empty KV cache for ``rows`` rows (twice the images under guidance).

        It has room for the scales before ``scales``; None for all.
        """
        stacked = isinstance(self.blocks, StackedBlocks)
        dtype = self.dtypes.compute_dtype
        return KVCache.make(self.config, rows, dtype, scales=scales, stacked=stacked)

    def hidden(
        self,
        x: jax.Array,
        modulations: Modulations,
        cache: KVCache | None = None,
        offset: int = 0,
        mask: np.ndarray | None = None,
        keeps: tuple[tuple[jax.Array, jax.Array], ...] | None = None,
    ) -> tuple[jax.Array, KVCache]:
        """Runs the blocks over a window of positions.

        Args:
          x: embedded inputs [batch, length, width].
          modulations: of the same batch.
          cache: keys and values so far; None for attention over the window alone.
          offset: position of the window's first token.
          mask: bool [length, keys]; None where every query sees every key.
          keeps: stochastic depth in training, see ``Block``.

        Returns:
          [batch, length, width], and the cache with the window written at ``offset``.
        """
        chex.assert_shape(x, (modulations.condition.shape[0], None, self.config.width))
        if cache is not None and keeps is None and self._fused:
            # Imported late: Pallas takes a while, and only this path needs it.
            from sdvar_jax.models.var.fused import fused_hidden, visible_limits

            limits = visible_limits(mask, offset, x.shape[1])
            if limits is not None:
                interpret = self.kernels == INTERPRETED
                return fused_hidden(
                    self.blocks, x, modulations.blocks, cache, offset, limits, interpret=interpret
                )
        seen = None if mask is None else jnp.asarray(mask)
        if isinstance(self.blocks, StackedBlocks):
            assert cache is not None, "stacked blocks are for decoding alone"
            return self.blocks.hidden(x, modulations.blocks[0], cache, offset, seen)
        keys, values = [], []
        run = Block.__call__ if cache is None else _block_over_cache
        for i, block in enumerate(self.blocks):
            cached = None if cache is None else (cache.keys[i], cache.values[i])
            keep = None if keeps is None else keeps[i]
            x, (key, value) = run(block, x, modulations.blocks[i], cached, offset, seen, keep)
            keys.append(key)
            values.append(value)
        return x, KVCache(keys=tuple(keys), values=tuple(values))

    def logits(self, x: jax.Array, modulations: Modulations) -> jax.Array:
        """Logits over the codebook: [batch, length, width] -> float32 [batch, length, vocab]."""
        scale, shift = modulations.head[:, :1], modulations.head[:, 1:]
        h = layer_norm(x, self.config.norm_eps) * (scale + 1) + shift
        if self._fused:
            from sdvar_jax.models.var.fused import fused_logits

            interpret = self.kernels == INTERPRETED
            kernel, bias = self.head_kernel[...], self.head_bias[...]
            return fused_logits(h, kernel, bias, self.dtypes, interpret=interpret)
        kernel = self.head_kernel[...].astype(jnp.float32)
        logits = jnp.matmul(h, kernel, precision=self.dtypes.precision)
        return logits + self.head_bias[...].astype(jnp.float32)[None, None]

    def teacher_forced(
        self,
        labels: jax.Array,
        inputs: jax.Array,
        keeps: tuple[tuple[jax.Array, jax.Array], ...] | None = None,
    ) -> jax.Array:
        """Logits of all scales from the true inputs, in one block-causal forward.

        Args:
          labels: int [batch]; ``config.unconditional_label`` for none.
          inputs: ``Quantizer.teacher_forcing_inputs``, [batch, total - first, latent_channels].
          keeps: stochastic depth in training, see ``Block``.

        Returns:
          float32 [batch, total_length, vocab].
        """
        pyramid = self.config.pyramid
        chex.assert_shape(
            inputs,
            (
                labels.shape[0],
                pyramid.total_length - pyramid.first_length,
                self.config.latent_channels,
            ),
        )
        modulations = self.modulations(labels)
        first = pyramid.first_length
        embedded = [self.embed_first(modulations)]
        for scale in range(1, pyramid.num_scales):
            window = pyramid.window(scale, scale + 1)
            scale_inputs = inputs[:, window.start - first : window.stop - first]
            embedded.append(self.embed_scale(scale_inputs, scale))
        mask = block_causal_mask(pyramid)
        x, _ = self.hidden(jnp.concatenate(embedded, axis=1), modulations, mask=mask, keeps=keeps)
        return self.logits(x, modulations)
