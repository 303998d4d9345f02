"""The half of a VQVAE that makes pictures, its arrays where a device reads them best."""

from __future__ import annotations

import jax
from flax import nnx
from jax.experimental.layout import Format, Layout

from sdvar_jax.models.vqvae.vqvae import VQVAE

# Of a filter [height, width, in, out]: cuDNN reads all of an output channel in one piece.
_OUT_FIRST = Layout(major_to_minor=(3, 0, 1, 2))


def decoding_half(vqvae: VQVAE) -> VQVAE:
    """The same model without its encoder (its arrays are shared): what a call need not be given."""
    copy = nnx.merge(*nnx.split(vqvae))
    del copy.encoder, copy.quant_conv
    return copy


def filters_out_first(vqvae: VQVAE) -> VQVAE:
    """The same model, its decoder's filters laid out in memory as cuDNN reads them.

    Shapes and values stay as they are. Without it each call of a compiled program transposes them
    all, which for one picture costs a tenth of the decoder's time.
    """
    graph, state = nnx.split(vqvae)

    def place(array: jax.Array) -> jax.Array:
        if array.ndim != 4:
            return array
        return jax.device_put(array, Format(_OUT_FIRST, array.sharding))

    state["decoder"] = jax.tree.map(place, state["decoder"])
    return nnx.merge(graph, state)
