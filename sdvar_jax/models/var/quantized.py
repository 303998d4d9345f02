"""Block weights in eight bits: half the bytes of bfloat16 to read and to hold."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from sdvar_jax.errors import SdvarError
from sdvar_jax.models.var.products import Kernel
from sdvar_jax.models.var.stacked import StackedBlocks
from sdvar_jax.models.var.transformer import VAR

FLOAT = "float"
INT8 = "int8"
WEIGHTS = (FLOAT, INT8)
"""What the matrices of the blocks can be held in."""

_LARGEST = 127


@jax.jit
def rounded(values: jax.Array) -> Kernel:
    """A matrix in eight bits, symmetrically and with one scale a column.

    Rounding what was multiplied out in float32 gives the same int8 values again.

    Args:
      values: floats [width, columns].

    Returns:
      int8 [width, columns] and float32 [columns]: values = int8 * scale, up to half a scale.
    """
    values = values.astype(jnp.float32)
    scale = jnp.max(jnp.abs(values), axis=0) / _LARGEST
    scale = jnp.where(scale > 0, scale, 1.0)
    return Kernel(jnp.round(values / scale[None]).astype(jnp.int8), scale)


def multiplied_out(kernel: Kernel) -> jax.Array:
    """The floats that an int8 matrix stands for, float32 [width, columns]."""
    assert kernel.scale is not None
    return kernel.values.astype(jnp.float32) * kernel.scale[None]


def has_int8_weights(model: VAR) -> bool:
    """Whether the matrices of the model's blocks are int8."""
    block = model.blocks.block if isinstance(model.blocks, StackedBlocks) else model.blocks[0]
    return block.attn.qkv_kernel_scale is not None


def with_int8_weights(model: VAR) -> VAR:
    """The same model with the four matrices of each block in eight bits, to run and not to train.

    Embeddings, AdaLN, head and biases stay as they are, and their arrays are shared.
    """
    if has_int8_weights(model):
        return model
    assert not isinstance(model.blocks, StackedBlocks), "round the weights before stacking them"
    copy = nnx.merge(*nnx.split(model))
    for block in copy.blocks:
        attn, ffn = block.attn, block.ffn
        values, scale = rounded(attn.qkv_kernel[...])
        attn.qkv_kernel, attn.qkv_kernel_scale = nnx.Param(values), nnx.Param(scale)
        for layer in (attn.proj, ffn.fc1, ffn.fc2):
            values, scale = rounded(layer.kernel[...])
            layer.kernel, layer.kernel_scale = nnx.Param(values), nnx.Param(scale)
    return copy


def check_weights(wanted: str) -> None:
    """``SdvarError`` for a name that is not in ``WEIGHTS``."""
    if wanted not in WEIGHTS:
        raise SdvarError(f"unknown weights {wanted!r}; use one of {', '.join(WEIGHTS)}")


def with_weights(wanted: str, model: VAR) -> VAR:
    """The model with its weights as wanted: one of ``WEIGHTS``; "float" leaves it as it is."""
    check_weights(wanted)
    return with_int8_weights(model) if wanted == INT8 else model
