"""Images to token maps and back, in batches and compiled."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdvar_jax.config.validation import require
from sdvar_jax.models import VQVAE

TokenMaps = tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """What the VQVAE makes of images.

    Attributes:
      images: float32 [batch, side, side, 3] in [0, 1].
      tokens: token map of every scale, int32 [batch, side**2] each.
      psnr: peak signal-to-noise ratio against the originals in dB, float [batch].
    """

    images: np.ndarray
    tokens: TokenMaps
    psnr: np.ndarray


def psnr(images: chex.ArrayNumpy, references: chex.ArrayNumpy) -> np.ndarray:
    """Peak signal-to-noise ratio of each image in dB, float64 [batch]; equal images give inf.

    Args:
      images: [batch, height, width, 3] in [0, 1].
      references: likewise.
    """
    chex.assert_equal_shape([images, references])
    difference = np.asarray(images, np.float64) - np.asarray(references, np.float64)
    error = np.mean(difference**2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error)


@functools.partial(jax.jit, static_argnames=("definition",))
def _tokenize(definition: Any, weights: Any, images: jax.Array) -> tuple[jax.Array, ...]:
    """Token maps of images in [0, 1]."""
    return nnx.merge(definition, weights).tokenize(images * 2.0 - 1.0)


@functools.partial(jax.jit, static_argnames=("definition",))
def _decode(definition: Any, weights: Any, token_maps: tuple[jax.Array, ...]) -> jax.Array:
    """Images in [0, 1] of token maps."""
    return (nnx.merge(definition, weights).decode_tokens(token_maps) + 1.0) / 2.0


@functools.partial(jax.jit, static_argnames=("definition",))
def _decode_each_scale(
    definition: Any, weights: Any, token_maps: tuple[jax.Array, ...]
) -> jax.Array:
    """Images in [0, 1] after each scale, [scales, batch, side, side, 3]."""
    vqvae = nnx.merge(definition, weights)
    f_hats = vqvae.quantizer.f_hats(token_maps)
    # One scale at a time: together they would need the memory of so many images.
    return (jax.lax.map(vqvae.decode, f_hats) + 1.0) / 2.0


class ImageTokenizer:
    """A VQVAE, compiled for batches of one size.

    Attributes:
      vqvae: the model.
      batch_size: images a program call.
    """

    def __init__(self, vqvae: VQVAE, batch_size: int = 8) -> None:
        """Takes the model as it is; nothing is compiled before it is needed.

        Raises:
          SdvarError: the batch size is not positive.
        """
        require(batch_size >= 1, f"the batch size must be positive, got {batch_size}")
        self.vqvae, self.batch_size = vqvae, batch_size
        self._definition, self._weights = nnx.split(vqvae)

    @property
    def image_side(self) -> int:
        """Side of the images in pixels."""
        return self.vqvae.config.image_side

    def tokenize(self, images: chex.ArrayNumpy) -> TokenMaps:
        """Token maps of images.

        Args:
          images: [batch, side, side, 3] in [0, 1].

        Returns:
          One int32 [batch, side**2] a scale.
        """
        chex.assert_shape(images, (None, self.image_side, self.image_side, 3))
        return self._batched(_tokenize, np.asarray(images, np.float32))

    def decode(self, tokens: TokenMaps) -> np.ndarray:
        """Images of token maps: float32 [batch, side, side, 3] in [0, 1]."""
        self._check(tokens)
        return self._batched(_decode, tokens)

    def decode_each_scale(self, tokens: TokenMaps) -> np.ndarray:
        """Images as they stand after each scale: float32 [scales, batch, side, side, 3]."""
        self._check(tokens)
        return self._batched(_decode_each_scale, tokens, axis=1)

    def reconstruct(self, images: chex.ArrayNumpy) -> Reconstruction:
        """Encodes, quantizes and decodes images [batch, side, side, 3] in [0, 1]."""
        tokens = self.tokenize(images)
        made = self.decode(tokens)
        return Reconstruction(images=made, tokens=tokens, psnr=psnr(made, images))

    def _check(self, tokens: TokenMaps) -> None:
        lengths = self.vqvae.config.pyramid.lengths
        require(len(tokens) == len(lengths), f"{len(tokens)} token maps for {len(lengths)} scales")
        for token_map, length in zip(tokens, lengths, strict=True):
            chex.assert_shape(token_map, (None, length))

    def _batched(self, program: Callable[..., Any], inputs: Any, axis: int = 0) -> Any:
        """Runs a program over the first axis of its inputs, the last batch filled up."""
        count = jax.tree.leaves(inputs)[0].shape[0]
        size = min(self.batch_size, count)
        require(count >= 1, "give at least one image")
        parts = []
        for first in range(0, count, size):
            rows = np.minimum(np.arange(first, first + size), count - 1)
            batch = jax.tree.map(lambda array, rows=rows: jnp.asarray(array[rows]), inputs)
            parts.append(jax.device_get(program(self._definition, self._weights, batch)))
        return jax.tree.map(
            lambda *arrays: np.take(np.concatenate(arrays, axis=axis), np.arange(count), axis=axis),
            *parts,
        )
