"""What the arithmetic of VAR costs at the least: operations and bytes, from shapes alone.

Nothing is counted that a better program could avoid: weights, keys and values are read once a
forward, activations stay on the chip, the mask leaves nothing to compute that it hides, and the
classes' modulations are computed once an image. Each input is read once, each output written once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from sdvar_jax.config import VARConfig, VQVAEConfig
from sdvar_jax.config.validation import require

_FLOAT32_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What a device can do at the most.

    Attributes:
      bytes_per_second: device memory, bytes read plus bytes written.
      flops_per_second: matrix products in the compute dtype.
      float32_flops_per_second: matrix products of float32 arrays at the default precision.
    """

    bytes_per_second: float
    flops_per_second: float
    float32_flops_per_second: float

    def __post_init__(self) -> None:
        require(
            min(dataclasses.astuple(self)) > 0, f"a device's ceilings must be positive, got {self}"
        )


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations and bytes of a piece of work.

    Attributes:
      bytes: to and from device memory.
      flops: in the compute dtype.
      float32_flops: in float32.
    """

    bytes: float = 0.0
    flops: float = 0.0
    float32_flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.bytes + other.bytes,
            self.flops + other.flops,
            self.float32_flops + other.float32_flops,
        )

    def memory_seconds(self, ceilings: Ceilings) -> float:
        """Time to move the bytes."""
        return self.bytes / ceilings.bytes_per_second

    def arithmetic_seconds(self, ceilings: Ceilings) -> float:
        """Time to do the operations."""
        return (
            self.flops / ceilings.flops_per_second
            + self.float32_flops / ceilings.float32_flops_per_second
        )

    def seconds(self, ceilings: Ceilings) -> float:
        """The floor: the longer of the two, as both can go on at once."""
        return max(self.memory_seconds(ceilings), self.arithmetic_seconds(ceilings))


def block_parameters(config: VARConfig) -> int:
    """Matrix parameters of one block that every forward reads (AdaLN apart)."""
    width = config.width
    return 4 * width * width + 2 * width * config.mlp_width


def modulation_parameters(config: VARConfig) -> int:
    """Matrix parameters of all AdaLN projections, the head's included."""
    width = config.width
    projections = 1 if config.shared_aln else config.depth
    return (6 * projections + 2) * width * width


def modulation_work(config: VARConfig, rows: int, itemsize: int) -> Work:
    """Modulations of all blocks and the head, once an image.

    Args:
      config: of the transformer.
      rows: images, doubled under guidance.
      itemsize: bytes of a parameter and of an activation.
    """
    parameters = modulation_parameters(config)
    written = rows * (6 * config.depth + 2) * config.width
    return Work(bytes=(parameters + written) * itemsize, flops=2.0 * rows * parameters)


def forward_work(
    config: VARConfig,
    start: int,
    stop: int,
    rows: int,
    itemsize: int,
    block_itemsize: int | None = None,
) -> Work:
    """One forward over the scales ``start`` to ``stop`` (exclusive).

    Args:
      config: of the transformer.
      start: first scale.
      stop: scale behind the last.
      rows: images, doubled under guidance.
      itemsize: bytes of a parameter and of a cached number.
      block_itemsize: bytes of a parameter of the blocks; None where they are as all others.
    """
    pyramid, width, depth = config.pyramid, config.width, config.depth
    tokens = pyramid.offsets[stop] - pyramid.offsets[start]
    # Queries times the keys they see, summed over the scales.
    seen = sum(pyramid.lengths[s] * pyramid.offsets[s + 1] for s in range(start, stop))
    head = width * config.vocab_size
    weights = depth * block_parameters(config)
    weight_bytes = weights * (itemsize if block_itemsize is None else block_itemsize)
    cache_read = 2 * rows * pyramid.offsets[start] * width * depth
    cache_written = 2 * rows * tokens * width * depth
    return Work(
        bytes=float(weight_bytes + (head + cache_read + cache_written) * itemsize),
        flops=2.0 * rows * tokens * weights + 4.0 * rows * seen * width * depth,
        float32_flops=2.0 * rows * tokens * head,
    )


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A square convolution of the VQVAE's decoder.

    Attributes:
      side: of its output.
      inputs: channels.
      outputs: channels.
      kernel: side of the kernel.
    """

    side: int
    inputs: int
    outputs: int
    kernel: int

    @property
    def parameters(self) -> int:
        """Of the kernel."""
        return self.inputs * self.outputs * self.kernel**2


@dataclasses.dataclass(frozen=True)
class CellAttention:
    """Self-attention over all cells of a feature map, its projections apart."""

    side: int
    channels: int


Layer = Convolution | CellAttention


def _residual(side: int, inputs: int, outputs: int) -> Iterator[Layer]:
    yield Convolution(side, inputs, outputs, 3)
    yield Convolution(side, outputs, outputs, 3)
    if inputs != outputs:
        yield Convolution(side, inputs, outputs, 1)


def _attention(side: int, channels: int) -> Iterator[Layer]:
    yield Convolution(side, channels, 3 * channels, 1)
    yield CellAttention(side, channels)
    yield Convolution(side, channels, channels, 1)


def decoder_layers(config: VQVAEConfig) -> Iterator[Layer]:
    """Every matrix-like layer between f_hat and the image."""
    latent, side = config.latent_channels, config.pyramid.latent_side
    widths = [config.channels * m for m in config.channel_multipliers]
    channels, last = widths[-1], len(widths) - 1
    yield Convolution(side, latent, latent, 3)
    yield Convolution(side, latent, channels, 3)
    yield from _residual(side, channels, channels)
    if config.mid_attention:
        yield from _attention(side, channels)
    yield from _residual(side, channels, channels)
    for level in range(last, -1, -1):
        for _ in range(config.residual_blocks + 1):
            yield from _residual(side, channels, widths[level])
            channels = widths[level]
            if config.attention and level == last:
                yield from _attention(side, channels)
        if level:
            side *= 2
            yield Convolution(side, channels, channels, 3)
    yield Convolution(side, channels, 3, 3)


def decode_work(config: VQVAEConfig, batch: int, itemsize: int) -> Work:
    """Images from f_hat.

    Args:
      config: of the VQVAE.
      batch: images.
      itemsize: bytes of a parameter.
    """
    parameters, flops = 0, 0.0
    for layer in decoder_layers(config):
        cells = layer.side**2
        if isinstance(layer, Convolution):
            parameters += layer.parameters
            flops += 2.0 * batch * cells * layer.parameters
        else:
            flops += 4.0 * batch * cells * cells * layer.channels
    read = batch * config.pyramid.latent_side**2 * config.latent_channels * _FLOAT32_BYTES
    written = batch * config.image_side**2 * 3 * _FLOAT32_BYTES
    return Work(bytes=float(parameters * itemsize + read + written), flops=flops)
