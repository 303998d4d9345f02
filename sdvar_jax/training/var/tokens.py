"""A set of pictures as tokens, and the inputs that teacher forcing makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config import DTypePolicy, ScalePyramid
from sdvar_jax.data import ImageSource
from sdvar_jax.models import VQVAE, Quantizer
from sdvar_jax.models.resize import resize_area
from sdvar_jax.training.state import model_params
from sdvar_jax.training.templates import build_vqvae
from sdvar_jax.training.var.config import TokenNoiseConfig

Draw = Callable[[jax.Array, int, jax.Array], jax.Array]
"""Tokens [batch, side**2] of a scale from the inputs of the scales up to it, its number, a key."""

_BATCH = 256


@dataclasses.dataclass(frozen=True)
class TokenSet:
    """A set of n pictures, tokenized.

    Attributes:
      tokens: uint16 or int32 [n, total_length].
      labels: int32 [n].
      features: the encoder's, float32 [n, latent, latent, channels], where they are needed.
      glyphs: what each picture shows, where it is known.
      class_names: name of each class.
    """

    tokens: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None = None
    glyphs: Sequence[str] | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)


def tokenize_set(
    source: ImageSource, vqvae: VQVAE, *, features: bool = False, batch_size: int = _BATCH
) -> TokenSet:
    """Tokens of every picture of a set, made on the device once.

    Args:
      source: the pictures.
      vqvae: frozen.
      features: keep the encoder's features too (token noise needs them).
      batch_size: pictures a program call.
    """
    config, dtypes = vqvae.config, vqvae.dtypes
    params = model_params(vqvae)

    @jax.jit
    def run(params: dict[str, jax.Array], images: jax.Array) -> tuple[jax.Array, jax.Array]:
        model = build_vqvae(config, params, _float32_weights(dtypes))
        encoded = model.encode(images.astype(jnp.float32) / 127.5 - 1.0)
        return jnp.concatenate(model.quantizer.tokenize(encoded)[0], axis=1), encoded

    count = len(source)
    batch = min(batch_size, count)
    token_dtype = np.uint16 if config.vocab_size <= 2**16 else np.int32
    tokens, kept = [], []
    for first in range(0, count, batch):
        rows = np.minimum(np.arange(first, first + batch), count - 1)
        size = min(batch, count - first)
        made, encoded = run(params, source.gather(rows)[0])
        tokens.append(np.asarray(made[:size]).astype(token_dtype))
        if features:
            kept.append(np.asarray(encoded[:size]))
    return TokenSet(
        tokens=np.concatenate(tokens),
        labels=np.asarray(source.labels, np.int32),
        features=np.concatenate(kept) if features else None,
        glyphs=getattr(source, "glyphs", None),
        class_names=tuple(source.class_names),
    )


def _float32_weights(dtypes: DTypePolicy) -> DTypePolicy:
    return DTypePolicy(param="float32", compute=dtypes.compute)


def by_scale(tokens: jax.Array, pyramid: ScalePyramid) -> tuple[jax.Array, ...]:
    """Splits tokens [batch, total_length] into one map a scale, int32 [batch, side**2] each."""
    chex.assert_shape(tokens, (None, pyramid.total_length))
    tokens = tokens.astype(jnp.int32)
    return tuple(tokens[:, pyramid.window(scale, scale + 1)] for scale in range(pyramid.num_scales))


def inputs_of_tokens(quantizer: Quantizer, tokens: jax.Array) -> jax.Array:
    """Teacher-forcing inputs of tokens [batch, total_length].

    Returns:
      float32 [batch, total_length - first_length, latent_channels].
    """
    maps = by_scale(tokens, quantizer.config.pyramid)
    return quantizer.teacher_forcing_inputs(quantizer.f_hats(maps))


def noisy_inputs(
    quantizer: Quantizer,
    features: jax.Array,
    noise: TokenNoiseConfig,
    key: jax.Array,
    scales: int | None = None,
    draw: Draw | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Teacher-forcing inputs from tokens that are a little off, and what is wanted at each scale.

    Args:
      quantizer: frozen.
      features: the encoder's [batch, latent, latent, channels].
      noise: how far off.
      key: of the disturbance.
      scales: make the first so many alone; None for all.
      draw: the model's own tokens, for ``noise.own_share``.

    Returns:
      Wanted tokens int32 [batch, total_length]: at every scale those nearest to what the disturbed
      scales before it have left; and the inputs, float32 [batch, total - first, channels]. Without
      noise these are the tokenizer's tokens and their inputs.
    """
    config = quantizer.config
    batch = features.shape[0]
    rest, f_hat = features, jnp.zeros_like(features)
    share_key, key = jax.random.split(key)
    share = noise.share * jax.random.uniform(share_key, (batch, 1, 1))
    own_share = noise.own_share * jax.random.uniform(jax.random.fold_in(share_key, 1), (batch, 1))
    wanted, inputs = [], []
    for scale, side in enumerate(config.pyramid.sides[:scales]):
        vectors = resize_area(rest, side).reshape(batch, side * side, config.latent_channels)
        best = quantizer.nearest(vectors)  # [batch, side**2]
        error = jnp.mean((vectors - quantizer.embed(best)) ** 2)
        coin_key, noise_key = jax.random.split(jax.random.fold_in(key, scale))
        disturbed = jax.random.uniform(coin_key, (batch, side * side, 1)) < share
        offset = noise.strength * jnp.sqrt(error) * jax.random.normal(noise_key, vectors.shape)
        chosen = quantizer.nearest(vectors + jnp.where(disturbed, offset, 0.0))
        if scale > 0:
            inputs.append(quantizer.scale_input(f_hat, scale))  # [batch, side**2, channels]
        if noise.own_share > 0 and 0 < scale < noise.own_scales:
            assert draw is not None, "own tokens need someone to draw them"
            own_coin, own_key = jax.random.split(jax.random.fold_in(coin_key, 1))
            own = draw(jnp.concatenate(inputs, axis=1), scale, own_key)
            chosen = jnp.where(jax.random.uniform(own_coin, own.shape) < own_share, own, chosen)
        added = quantizer.residual(quantizer.embed(chosen), scale)
        f_hat, rest = f_hat + added, rest - added
        wanted.append(best)
    return jnp.concatenate(wanted, axis=1), jnp.concatenate(inputs, axis=1)
