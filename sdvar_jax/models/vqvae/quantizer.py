"""The multi-scale residual quantizer: f_hat from token maps and back (VAR, algorithms 1 and 2)."""

from __future__ import annotations

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdvar_jax.config import FLOAT32, VQVAEConfig
from sdvar_jax.models.kernels import INTERPRETED, OWN, REFERENCE, is_tile
from sdvar_jax.models.resize import area_matrix, bicubic_matrix, resize_area, resize_bicubic
from sdvar_jax.models.vqvae.kernels.residual_convolution import residual_convolution
from sdvar_jax.models.vqvae.kernels.resize import resize
from sdvar_jax.models.vqvae.layers import conv


def convolution_of_scale(num_convolutions: int, num_scales: int) -> tuple[int, ...]:
    """Which of the shared residual convolutions each scale uses.

    The original spreads the convolutions over [0, 1] as ticks, inset at both ends, and scale k
    takes the one nearest to k / (num_scales - 1).

    Args:
      num_convolutions: convolutions that are stored.
      num_scales: scales of the pyramid.

    Returns:
      An index into the convolutions for each scale.
    """
    inset = (1 / 3 if num_convolutions == 4 else 1 / 2) / num_convolutions
    ticks = np.linspace(inset, 1 - inset, num_convolutions)
    return tuple(
        int(np.argmin(np.abs(ticks - scale / (num_scales - 1)))) for scale in range(num_scales)
    )


class Quantizer(nnx.Module):
    """Residual quantizer with one codebook for all scales, always in float32.

    f_hat_k = f_hat_{k-1} + phi_k(up(embed(r_k))), with phi(x) = (1-r)*x + r*conv3x3(x).

    Attributes:
      kernels: what runs its resizes and convolutions, see ``models.kernels``.
    """

    def __init__(self, config: VQVAEConfig, *, rngs: nnx.Rngs) -> None:
        self.config = config
        entries, channels = config.vocab_size, config.latent_channels
        bound = 1.0 / entries
        self.codebook = nnx.Param(
            jax.random.uniform(rngs.params(), (entries, channels), jnp.float32, -bound, bound)
        )  # [vocab, latent_channels]
        self.convolutions = nnx.List(
            conv(channels, channels, 3, FLOAT32, rngs) for _ in range(config.num_convolutions)
        )
        self.convolution_index = convolution_of_scale(
            config.num_convolutions, config.pyramid.num_scales
        )
        self.kernels = REFERENCE

    @property
    def _interpret(self) -> bool:
        return self.kernels == INTERPRETED

    @property
    def _fused(self) -> bool:
        """Whether the package's kernels run: their tiles are as wide as the channels."""
        return self.kernels in OWN and is_tile(self.config.latent_channels)

    def _resized(
        self,
        maps: jax.Array,
        side: int,
        matrix: Callable[[int, int], np.ndarray],
        plain: Callable[[jax.Array, int], jax.Array],
    ) -> jax.Array:
        """A resize by a matrix of ``models.resize``, or by its plain function there."""
        source = maps.shape[1]
        if self._fused and source != side:
            return resize(maps, matrix(source, side), interpret=self._interpret)
        return plain(maps, side)

    def initial_f_hat(self, batch: int) -> jax.Array:
        """f_hat before the first scale: zeros [batch, latent, latent, latent_channels]."""
        side = self.config.pyramid.latent_side
        return jnp.zeros((batch, side, side, self.config.latent_channels), jnp.float32)

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Codebook entries of tokens: int [batch, length] -> float32 [batch, length, channels]."""
        chex.assert_rank(tokens, 2)
        return self.codebook[...].astype(jnp.float32)[tokens]

    def residual(self, embedding: jax.Array, scale: int) -> jax.Array:
        """What a scale adds to f_hat.

        Args:
          embedding: codebook entries (or a mixture of them) [batch, side**2, latent_channels].
          scale: 0-based scale.

        Returns:
          float32 [batch, latent, latent, latent_channels].
        """
        pyramid, channels = self.config.pyramid, self.config.latent_channels
        side = pyramid.sides[scale]
        chex.assert_shape(embedding, (None, side * side, channels))
        h = embedding.astype(jnp.float32).reshape(-1, side, side, channels)
        ratio = self.config.residual_ratio
        convolution = self.convolutions[self.convolution_index[scale]]
        h = self._resized(h, pyramid.latent_side, bicubic_matrix, resize_bicubic)
        if self._fused:
            assert convolution.bias is not None
            return residual_convolution(
                h,
                convolution.kernel[...],
                convolution.bias[...],
                ratio=ratio,
                interpret=self._interpret,
            )
        return (1.0 - ratio) * h + ratio * convolution(h)

    def add_scale(self, f_hat: jax.Array, tokens: jax.Array, scale: int) -> jax.Array:
        """f_hat after ``scale`` from f_hat before it and the scale's tokens [batch, side**2]."""
        return f_hat + self.residual(self.embed(tokens), scale)

    def scale_input(self, f_hat: jax.Array, scale: int) -> jax.Array:
        """The transformer's input at ``scale`` from f_hat after the scale before it.

        Args:
          f_hat: [batch, latent, latent, latent_channels].
          scale: 0-based scale, at least 1 (the first scale's input is the class embedding).

        Returns:
          float32 [batch, side**2, latent_channels].
        """
        if scale < 1:
            raise ValueError("the first scale has no input from f_hat")
        side = self.config.pyramid.sides[scale]
        resized = self._resized(f_hat, side, area_matrix, resize_area)
        return resized.reshape(f_hat.shape[0], side * side, f_hat.shape[-1])

    def nearest(self, features: jax.Array) -> jax.Array:
        """Tokens of the nearest codebook entries by Euclidean distance.

        Args:
          features: [..., latent_channels].

        Returns:
          int32 [...].
        """
        codebook = self.codebook[...].astype(jnp.float32)
        dots = jnp.matmul(features, codebook.T, precision=jax.lax.Precision.HIGHEST)
        squares = jnp.sum(codebook**2, axis=-1)
        # |f|^2 is the same for every entry, so it cannot change which is nearest.
        return jnp.argmin(
            jnp.expand_dims(squares, range(dots.ndim - 1)) - 2.0 * dots, axis=-1
        ).astype(jnp.int32)

    def tokenize(self, features: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Tokens of every scale (VAR, algorithm 1).

        Args:
          features: the encoder's [batch, latent, latent, latent_channels].

        Returns:
          K token maps, int32 [batch, side**2] each, and float32 f_hat after each scale
          [num_scales, batch, latent, latent, latent_channels].
        """
        pyramid = self.config.pyramid
        chex.assert_shape(
            features,
            (None, pyramid.latent_side, pyramid.latent_side, self.config.latent_channels),
        )
        rest = features.astype(jnp.float32)
        f_hat = jnp.zeros_like(rest)
        token_maps, f_hats = [], []
        for scale, side in enumerate(pyramid.sides):
            tokens = self.nearest(resize_area(rest, side)).reshape(-1, side * side)
            added = self.residual(self.embed(tokens), scale)
            f_hat, rest = f_hat + added, rest - added
            token_maps.append(tokens)
            f_hats.append(f_hat)
        return tuple(token_maps), jnp.stack(f_hats)

    def f_hats(self, token_maps: tuple[jax.Array, ...]) -> jax.Array:
        """f_hat after each given scale, float32 [scales, batch, latent, latent, channels]."""
        f_hat = self.initial_f_hat(token_maps[0].shape[0])
        f_hats = []
        for scale, tokens in enumerate(token_maps):
            f_hat = self.add_scale(f_hat, tokens, scale)
            f_hats.append(f_hat)
        return jnp.stack(f_hats)

    def teacher_forcing_inputs(self, f_hats: jax.Array) -> jax.Array:
        """The transformer's inputs at all scales but the first.

        Args:
          f_hats: f_hat after each scale [num_scales, batch, latent, latent, latent_channels]; or
            after the first scales alone.

        Returns:
          float32 [batch, total_length - first_length, latent_channels], total_length of the scales
          that were given.
        """
        inputs = [self.scale_input(f_hats[scale - 1], scale) for scale in range(1, f_hats.shape[0])]
        return jnp.concatenate(inputs, axis=1)
