"""Building blocks of the VQVAE's encoder and decoder, channels last."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdvar_jax.config import DTypePolicy
from sdvar_jax.models.kernels import FUSED, INTERPRETED, OWN, REFERENCE
from sdvar_jax.models.vqvae.kernels.convolution import convolution, multiprocessors, tiles_for
from sdvar_jax.models.vqvae.kernels.group_norm import group_norm

_NORM_GROUPS = 32
_NORM_EPS = 1e-6

_LIBRARY_COLUMNS = 32
"""Columns that a product is filled up to whole multiples of."""


def _own_convolution(
    x: jax.Array,
    kernel: nnx.Param,
    bias: nnx.Param,
    kernels: str,
    added: jax.Array | None = None,
) -> jax.Array | None:
    """What the package's ``convolution`` makes of x; None where the library is to run it."""
    if kernels != FUSED:
        return None
    filters, shift = (value[...].astype(x.dtype) for value in (kernel, bias))
    doubling, programs = filters.shape[0] == 2, multiprocessors()
    channels = shift.size // (4 if doubling else 1)
    tiles = tiles_for(x.shape, channels, doubling=doubling, multiprocessors=programs)
    if tiles is None:
        return None
    return convolution(x, filters, shift, added, tiles=tiles, programs=programs)


class Convolution(nnx.Conv):
    """A convolution, and the sum with a shortcut where there is one.

    Attributes:
      kernels: what runs it, see ``models.kernels``; the package's own take large maps.
    """

    kernels = REFERENCE

    def convolve(self, x: jax.Array, added: jax.Array | None = None) -> jax.Array:
        """Convolves x [batch, height, width, in], then adds [batch, height, width, out]."""
        assert self.bias is not None
        if self.kernel_size == (3, 3) and self.strides == 1 and self.padding == 1:
            own = _own_convolution(x, self.kernel, self.bias, self.kernels, added)
            if own is not None:
                return own
        y = self(x)
        return y if added is None else y + added


def conv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    dtypes: DTypePolicy,
    rngs: nnx.Rngs,
    *,
    stride: int = 1,
    padding: int | tuple[tuple[int, int], tuple[int, int]] | None = None,
) -> Convolution:
    """A square convolution that keeps the side (odd kernel) unless told otherwise.

    Kernels and biases start as PyTorch's default does, uniform within 1/sqrt(fan in).
    """
    bound = (in_channels * kernel * kernel) ** -0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return Convolution(
        in_channels,
        out_channels,
        (kernel, kernel),
        strides=stride,
        padding=kernel // 2 if padding is None else padding,
        dtype=dtypes.compute_dtype,
        param_dtype=dtypes.param_dtype,
        precision=dtypes.precision,
        kernel_init=uniform,
        bias_init=uniform,
        rngs=rngs,
    )


class GroupNorm(nnx.GroupNorm):
    """GroupNorm with 32 groups, statistics in float32, and the SiLU behind it where there is one.

    Attributes:
      kernels: what runs it, see ``models.kernels``.
    """

    def __init__(self, channels: int, dtypes: DTypePolicy, rngs: nnx.Rngs) -> None:
        super().__init__(
            channels,
            num_groups=_NORM_GROUPS,
            epsilon=_NORM_EPS,
            # The one-pass variance is off PyTorch's by 2e-3 at a large mean; of 16-bit activations
            # it is off by far less than these are, and saves a fifth of the decoder's kernels.
            use_fast_variance=jnp.dtype(dtypes.compute_dtype).itemsize == 2,
            dtype=dtypes.compute_dtype,
            param_dtype=dtypes.param_dtype,
            rngs=rngs,
        )
        self.kernels = REFERENCE

    def normalize(self, x: jax.Array, *, silu: bool) -> jax.Array:
        """Normalises x [batch, height, width, channels], then SiLU where asked for."""
        if self.kernels not in OWN:
            return nnx.silu(self(x)) if silu else self(x)
        assert self.scale is not None
        assert self.bias is not None
        return group_norm(
            x,
            self.scale[...],
            self.bias[...],
            groups=_NORM_GROUPS,
            eps=_NORM_EPS,
            silu=silu,
            interpret=self.kernels == INTERPRETED,
        )


class ResidualBlock(nnx.Module):
    """Two normalised 3x3 convolutions with a shortcut, [batch, h, w, in] -> [batch, h, w, out]."""

    def __init__(
        self, in_channels: int, out_channels: int, dtypes: DTypePolicy, *, rngs: nnx.Rngs
    ) -> None:
        self.norm1 = GroupNorm(in_channels, dtypes, rngs)
        self.conv1 = conv(in_channels, out_channels, 3, dtypes, rngs)
        self.norm2 = GroupNorm(out_channels, dtypes, rngs)
        self.conv2 = conv(out_channels, out_channels, 3, dtypes, rngs)
        self.shortcut = (
            None
            if in_channels == out_channels
            else conv(in_channels, out_channels, 1, dtypes, rngs)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block to x [batch, height, width, channels]."""
        h = self.conv1.convolve(self.norm1.normalize(x, silu=True))
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.conv2.convolve(self.norm2.normalize(h, silu=True), shortcut)


class SpatialAttention(nnx.Module):
    """Single-head self-attention over all cells of a feature map."""

    def __init__(self, channels: int, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        self.precision = dtypes.precision
        self.norm = GroupNorm(channels, dtypes, rngs)
        self.qkv = conv(channels, 3 * channels, 1, dtypes, rngs)
        self.proj_out = conv(channels, channels, 1, dtypes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies attention to x [batch, height, width, channels]."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(self.norm.normalize(x, silu=False)).reshape(
            batch, height * width, 3 * channels
        )
        q, k, v = jnp.split(qkv, 3, axis=-1)  # [batch, cells, channels]
        scores = jnp.einsum(
            "bqc,bkc->bqk",
            q * channels**-0.5,
            k,
            precision=self.precision,
            preferred_element_type=jnp.float32,
        )
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        out = jnp.einsum("bqk,bkc->bqc", weights, v, precision=self.precision)
        return x + self.proj_out(out.reshape(x.shape))


class Downsample(nnx.Module):
    """Halves the side by a strided convolution padded at the right and bottom only."""

    def __init__(self, channels: int, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        self.conv = conv(channels, channels, 3, dtypes, rngs, stride=2, padding=((0, 1), (0, 1)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, 2h, 2w, channels] -> [batch, h, w, channels]."""
        return self.conv(x)


class Upsample(nnx.Module):
    """Doubles the side by nearest neighbour and a convolution."""

    def __init__(self, channels: int, dtypes: DTypePolicy, *, rngs: nnx.Rngs) -> None:
        self.conv = conv(channels, channels, 3, dtypes, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, h, w, channels] -> [batch, 2h, 2w, channels]."""
        return self.conv(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))


# Which rows of a 3x3 filter fall on which of the two cells that an output row of each parity sees.
_ROWS_OF_PARITY = np.asarray([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


class PhasedUpsample(nnx.Module):
    """``Upsample`` as one 2x2 convolution of the small map, four ninths of the arithmetic.

    An output cell sees two by two cells of the small map, whichever its parities; the rows and
    columns of the filter that fall on the same cell are added up beforehand. Each of the four
    pairs of parities is a quarter of the output channels.

    Attributes:
      kernels: what runs it, see ``models.kernels``.
    """

    def __init__(self, plain: Upsample, kernels: str = REFERENCE) -> None:
        conv = plain.conv
        assert conv.bias is not None
        kernel = conv.kernel[...]  # [3, 3, in, out]
        rows = jnp.asarray(_ROWS_OF_PARITY)  # [parity, cell, filter row]
        phases = jnp.einsum(
            "aty,bux,yxio->tuiabo", rows, rows, kernel.astype(jnp.float32), precision="highest"
        )
        self.out_channels = kernel.shape[3]
        self.kernel = nnx.Param(
            phases.reshape(2, 2, kernel.shape[2], 4 * self.out_channels).astype(kernel.dtype)
        )
        self.bias = nnx.Param(jnp.tile(conv.bias[...], 4))
        self.precision = conv.precision
        self.kernels = kernels

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, h, w, channels] -> [batch, 2h, 2w, channels]."""
        batch, height, width, _ = x.shape
        own = _own_convolution(x, self.kernel, self.bias, self.kernels)
        if own is not None:
            return own
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            window_strides=(1, 1),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=self.precision,
        )
        y = y + self.bias[...].astype(x.dtype)[None, None, None]
        y = y.reshape(batch, height + 1, width + 1, 2, 2, self.out_channels)
        # The cells of parity 1 begin one further.
        rows = [
            jnp.stack(
                [y[:, a : a + height, b : b + width, a, b] for b in range(2)], axis=3
            )  # [batch, height, width, 2, out]
            for a in range(2)
        ]
        out = jnp.stack(rows, axis=2)  # [batch, height, 2, width, 2, out]
        return out.reshape(batch, 2 * height, 2 * width, self.out_channels)


class ThinConvolution(nnx.Module):
    """A 3x3 convolution to few channels as one product of all nine taps.

    Each cell is multiplied by all taps, and what falls on the same cell is added up: as a
    convolution nearly all columns of a tile would be empty.
    """

    def __init__(self, plain: Convolution) -> None:
        assert plain.bias is not None
        assert plain.kernel_size == (3, 3)
        kernel = plain.kernel[...]  # [3, 3, in, out]
        self.out_channels = kernel.shape[3]
        columns = jnp.moveaxis(kernel, 2, 0).reshape(kernel.shape[2], -1)
        columns = jnp.pad(columns, ((0, 0), (0, -columns.shape[1] % _LIBRARY_COLUMNS)))
        self.columns = nnx.Param(columns)  # [in, 9 * out and zeros]
        self.bias = nnx.Param(plain.bias[...])
        self.precision = plain.precision

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, height, width, in] -> [batch, height, width, out]."""
        batch, height, width, depth = x.shape
        parts = jnp.matmul(
            x.reshape(-1, depth),
            self.columns[...].astype(x.dtype),
            precision=self.precision,
            preferred_element_type=jnp.float32,
        ).reshape(batch, height, width, -1)
        around = jnp.pad(parts, ((0, 0), (1, 1), (1, 1), (0, 0)))
        total = self.bias[...].astype(jnp.float32)[None, None, None]
        for down in range(3):
            for right in range(3):
                first = (3 * down + right) * self.out_channels
                rows, columns = slice(down, down + height), slice(right, right + width)
                total = total + around[:, rows, columns, first : first + self.out_channels]
        return total.astype(x.dtype)


class Level(nnx.Module):
    """Residual blocks of one resolution, attention behind each where asked for."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        attention: bool,
        dtypes: DTypePolicy,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        self.block = nnx.List(
            ResidualBlock(in_channels if i == 0 else out_channels, out_channels, dtypes, rngs=rngs)
            for i in range(blocks)
        )
        self.attn = nnx.List(
            SpatialAttention(out_channels, dtypes, rngs=rngs) for _ in range(blocks * attention)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[batch, h, w, in] -> [batch, h, w, out]."""
        for i, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[i](x)
        return x


class MiddleBlock(nnx.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(
        self, channels: int, attention: bool, dtypes: DTypePolicy, *, rngs: nnx.Rngs
    ) -> None:
        self.block_1 = ResidualBlock(channels, channels, dtypes, rngs=rngs)
        self.attn_1 = SpatialAttention(channels, dtypes, rngs=rngs) if attention else None
        self.block_2 = ResidualBlock(channels, channels, dtypes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Keeps the shape [batch, height, width, channels]."""
        x = self.block_1(x)
        if self.attn_1 is not None:
            x = self.attn_1(x)
        return self.block_2(x)
