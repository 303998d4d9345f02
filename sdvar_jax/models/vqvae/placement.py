"""The half of a VQVAE that makes pictures, as a device runs it best."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.layout import Format, Layout
from jax.sharding import SingleDeviceSharding

from sdvar_jax.models.kernels import FUSED
from sdvar_jax.models.vqvae.layers import (
    Convolution,
    GroupNorm,
    PhasedUpsample,
    ThinConvolution,
    Upsample,
)
from sdvar_jax.models.vqvae.quantizer import Quantizer
from sdvar_jax.models.vqvae.vqvae import VQVAE

# Of a filter [height, width, in, out]: cuDNN reads all of an output channel in one piece.
_OUT_FIRST = Layout(major_to_minor=(3, 0, 1, 2))


def decoding_half(vqvae: VQVAE) -> VQVAE:
    """The same model without its encoder (its arrays are shared): what a call need not be given."""
    copy = nnx.merge(*nnx.split(vqvae))
    del copy.encoder, copy.quant_conv
    return copy


def drawing_part(vqvae: VQVAE) -> VQVAE:
    """Of a decoding half what ``VQVAE.decode`` needs: no quantizer (its arrays are shared)."""
    copy = nnx.merge(*nnx.split(vqvae))
    del copy.quantizer
    return copy


def for_one_gpu(vqvae: VQVAE, kernels: str = FUSED) -> VQVAE:
    """The same model with sums that are faster on a GPU, where its arithmetic has 16 bits.

    Normalisations are run by kernels of the package, whose one-pass variance is for 16-bit
    activations. Maps are doubled by 2x2 filters, which are rounded anew, and the last convolution
    is a product. Kernels of the package run the quantizer too, in float32 as always, and
    convolutions of large maps where the GPU is a Hopper. Where the arithmetic has 32 bits it is
    left as it is.
    """
    copy = nnx.merge(*nnx.split(vqvae))
    if jnp.dtype(vqvae.dtypes.compute_dtype).itemsize != 2:
        return copy
    for _, node in nnx.iter_graph(copy):
        if isinstance(node, GroupNorm | Quantizer | Convolution):
            node.kernels = kernels
    for level in copy.decoder.up:
        if isinstance(level.upsample, Upsample):
            level.upsample = PhasedUpsample(level.upsample, kernels)
    if isinstance(copy.decoder.conv_out, Convolution):
        copy.decoder.conv_out = ThinConvolution(copy.decoder.conv_out)
    return copy


def filters_out_first(vqvae: VQVAE) -> VQVAE:
    """The same model, its decoder's filters laid out in memory as cuDNN reads them.

    Shapes and values stay as they are. Without it each call of a compiled program transposes them
    all, which for one picture costs a tenth of the decoder's time. An abstract model says where its
    arrays are going to be: on the default device.
    """
    graph, state = nnx.split(vqvae)

    def place(array: jax.Array | jax.ShapeDtypeStruct) -> jax.Array | jax.ShapeDtypeStruct:
        if array.ndim != 4:
            return array
        if isinstance(array, jax.ShapeDtypeStruct):
            where = array.sharding or SingleDeviceSharding(jax.devices()[0])
            return array.update(sharding=Format(_OUT_FIRST, where))
        return jax.device_put(array, Format(_OUT_FIRST, array.sharding))

    state["decoder"] = jax.tree.map(place, state["decoder"])
    return nnx.merge(graph, state)
