"""The blocks of VAR over a window, in seven kernels a block: the fast path on GPUs.

The same sums as ``VAR.hidden``'s reference path with fewer roundings in between. All positions of
all rows lie in one matrix, [rows * length, width]; where that is few rows or the model is small,
the products are the package's own and the matrix is padded by rows that nothing ever reads.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from sdvar_jax.config import DTypePolicy, VARConfig
from sdvar_jax.models.var.block import Block
from sdvar_jax.models.var.cache import KVCache
from sdvar_jax.models.var.kernels.attention import cached_attention
from sdvar_jax.models.var.kernels.block_causal import block_causal_attention
from sdvar_jax.models.var.kernels.linear import (
    Tiling,
    linear,
    linear_parts,
    multiplies_well,
    padded_rows,
)
from sdvar_jax.models.var.kernels.normalize import residual_normalize
from sdvar_jax.models.var.products import Kernel, product

_CAUSAL_LENGTH = 256
"""Positions up to which a window over several scales has too few tiles to leave any out."""

# Places in a block's six AdaLN vectors; a shift lies two behind its scale.
_GAMMA1, _GAMMA2, _SCALE1, _SCALE2 = range(4)


def visible_limits(mask: np.ndarray | None, offset: int, length: int) -> np.ndarray | None:
    """How many of a window's positions each of them sees, int32 [length].

    Args:
      mask: bool [length, offset + length], or None where every position sees all.
      offset: position of the window's first token.
      length: of the window.

    Returns:
      None if the mask is not a whole prefix and the first so many of the window.
    """
    if mask is None:
        return np.full((length,), length, np.int32)
    limits = mask.sum(axis=1).astype(np.int32) - offset
    whole = np.arange(offset + length)[None] < offset + limits[:, None]
    return limits if np.all(limits > 0) and np.array_equal(whole, mask) else None


class _Products:
    """The four products of a block: the package's own, or the library's."""

    def __init__(self, rows: int, config: VARConfig, dtypes: DTypePolicy, interpret: bool) -> None:
        self.own = multiplies_well(rows, config.width * max(3 * config.width, config.mlp_width))
        # The library would pad to whole eights itself, with a copy before and behind each product.
        self.padded = padded_rows(rows) if self.own else -(-rows // 8) * 8
        self._dtypes = dtypes
        self._interpret = interpret

    def _cast(self, array: jax.Array) -> jax.Array:
        return array.astype(self._dtypes.compute_dtype)

    def _operands(self, kernel: Kernel) -> tuple[jax.Array, jax.Array | None]:
        """What the package's own products read: int8 as it is, floats in the compute dtype."""
        return (self._cast(kernel.values) if kernel.scale is None else kernel.values), kernel.scale

    def whole(
        self, x: jax.Array, kernel: Kernel, bias: jax.Array | None = None, *, gelu: bool = False
    ) -> jax.Array:
        """The product x @ kernel, its bias and GELU where asked for."""
        bias = None if bias is None else self._cast(bias)
        if self.own:
            values, scale = self._operands(kernel)
            return linear(x, values, bias, scale, gelu=gelu, interpret=self._interpret)
        out = product(x, kernel, self._dtypes)
        out = out if bias is None else out + bias[None]
        return jax.nn.gelu(out, approximate=True) if gelu else out

    def branch(self, x: jax.Array, kernel: Kernel) -> jax.Array:
        """The product x @ kernel, maybe in parts still to be added up."""
        if self.own:
            return linear_parts(x, *self._operands(kernel), interpret=self._interpret)
        return product(x, kernel, self._dtypes)


# One function a window, so that a model of thirty blocks is traced and lowered as one; the compiler
# puts the blocks back in line.
@functools.partial(jax.jit, static_argnames=("offset", "causal", "interpret"))
def _fused_block(
    block: Block,
    total: jax.Array,
    h: jax.Array,
    modulation: jax.Array,
    next_modulation: jax.Array | None,
    seen: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    *,
    offset: int,
    causal: bool,
    interpret: bool,
) -> tuple[jax.Array, jax.Array | None, jax.Array, jax.Array]:
    """Runs one block over a window of positions.

    Args:
      block: with its weights.
      total: the residual stream [padded, width].
      h: as the block's LayerNorm leaves it, [padded, width].
      modulation: the block's, [rows, 6, width].
      next_modulation: of the block behind it; None for the last.
      seen: how many of the window's positions each sees, int32 [length].
      keys: this block's cache.
      values: likewise.
      offset: see ``fused_hidden``.
      causal: whether tiles of keys that no query sees are worth leaving out.
      interpret: see ``fused_hidden``.

    Returns:
      ``total`` and ``h`` for the next block (None behind the last), and the cache written.
    """
    config, attn, ffn = block.config, block.attn, block.ffn
    rows, length = modulation.shape[0], seen.shape[0]
    products = _Products(rows * length, config, block.dtypes, interpret)
    common = {"length": length, "eps": config.norm_eps, "interpret": interpret}
    attention = block_causal_attention if causal else cached_attention
    out, keys, values = attention(
        products.whole(h, attn.qkv_weight()),
        attn.q_bias[...],
        attn.v_bias[...],
        None if attn.scale_mul is None else attn.scale_mul[...],
        seen,
        keys,
        values,
        rows=rows,
        offset=offset,
        interpret=interpret,
    )
    total, h = residual_normalize(
        total,
        modulation,
        branch=products.branch(out, attn.proj.weight()),
        bias=attn.proj.offset(),
        gamma=_GAMMA1,
        scale=_SCALE2,
        **common,
    )
    h = products.whole(h, ffn.fc1.weight(), ffn.fc1.offset(), gelu=True)
    total, h = residual_normalize(
        total,
        modulation,
        branch=products.branch(h, ffn.fc2.weight()),
        bias=ffn.fc2.offset(),
        gamma=_GAMMA2,
        scale=None if next_modulation is None else _SCALE1,
        next_modulation=next_modulation,
        **common,
    )
    return total, h, keys, values


def few_rows_linear(layer: nnx.Linear, x: jax.Array, *, interpret: bool = False) -> jax.Array:
    """A linear layer over rows that are few, as those of the classes are.

    Args:
      layer: with a bias.
      x: [rows, width] in the compute dtype.
      interpret: run without an accelerator, for tests.

    Returns:
      [rows, columns] in x's dtype.
    """
    kernel = layer.kernel[...]
    if layer.bias is None or not multiplies_well(x.shape[0], kernel.size):
        return layer(x)
    return _own_linear(x, kernel, layer.bias[...], x.dtype, interpret)


def fused_logits(
    h: jax.Array,
    kernel: jax.Array,
    bias: jax.Array,
    dtypes: DTypePolicy,
    *,
    interpret: bool = False,
) -> jax.Array:
    """The product of the head, from operands in the compute dtype.

    Args:
      h: normalised, [rows, length, width].
      kernel: [width, vocab].
      bias: [vocab].
      dtypes: for the compute dtype.
      interpret: run without an accelerator, for tests.

    Returns:
      float32 [rows, length, vocab].
    """
    rows, length, width = h.shape
    h, kernel = h.astype(dtypes.compute_dtype), kernel.astype(dtypes.compute_dtype)
    # The widths of a block are multiples of 64 where these kernels run; a vocabulary may not be.
    if multiplies_well(rows * length, kernel.size) and kernel.shape[1] % Tiling.block_n == 0:
        h = h.reshape(rows * length, width)
        return _own_linear(h, kernel, bias, jnp.float32, interpret).reshape(rows, length, -1)
    logits = jnp.matmul(h, kernel, precision=dtypes.precision, preferred_element_type=jnp.float32)
    return logits + bias.astype(jnp.float32)[None, None]


def _own_linear(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, out_dtype: DTypeLike, interpret: bool
) -> jax.Array:
    """The package's own product x @ kernel + bias for any number of rows that it is good at."""
    rows = x.shape[0]
    padded = jnp.pad(x, ((0, padded_rows(rows) - rows), (0, 0)))
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    return linear(padded, kernel, bias, out_dtype=out_dtype, written=rows, interpret=interpret)


def fused_hidden(
    blocks: Sequence[Block],
    x: jax.Array,
    modulations: Sequence[jax.Array],
    cache: KVCache,
    offset: int,
    limits: np.ndarray,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, KVCache]:
    """Runs the blocks over a window of positions.

    Args:
      blocks: of the model.
      x: embedded inputs [rows, length, width] in the compute dtype.
      modulations: of each block, [rows, 6, width].
      cache: keys and values so far.
      offset: position of the window's first token.
      limits: see ``visible_limits``.
      interpret: run without an accelerator, for tests.

    Returns:
      [rows, length, width], and the cache with the window written.
    """
    rows, length, width = x.shape
    chex.assert_shape(modulations, (rows, 6, width))
    padded = _Products(rows * length, blocks[0].config, blocks[0].dtypes, interpret).padded
    total = x.reshape(rows * length, width)
    total = jnp.pad(total, ((0, padded - rows * length), (0, 0)))  # [padded, width]
    _, h = residual_normalize(
        total,
        modulations[0],
        length=length,
        eps=blocks[0].config.norm_eps,
        scale=_SCALE1,
        interpret=interpret,
    )
    seen = jnp.asarray(limits)
    causal = length > _CAUSAL_LENGTH and limits.min() < length
    keys, values = [], []
    for i, block in enumerate(blocks):
        total, h, key, value = _fused_block(
            block,
            total,
            h,
            modulations[i],
            None if i + 1 == len(blocks) else modulations[i + 1],
            seen,
            cache.keys[i],
            cache.values[i],
            offset=offset,
            causal=causal,
            interpret=interpret,
        )
        keys.append(key)
        values.append(value)
    x = total[: rows * length].reshape(rows, length, width)
    return x, KVCache(keys=tuple(keys), values=tuple(values))
