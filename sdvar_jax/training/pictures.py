"""Pictures as arrays, and sheets of pictures that models draw."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from sdvar_jax.data import ImageSource
from sdvar_jax.imaging import image_grid
from sdvar_jax.models import VAR, VQVAE
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training.drawing import draw_samples


def all_images(source: ImageSource) -> np.ndarray:
    """Every picture of a set, uint8 [n, side, side, 3]."""
    held = getattr(source, "images", None)
    if held is not None:
        return np.asarray(held)
    return np.asarray(source.gather(np.arange(len(source)))[0])


@functools.partial(jax.jit, static_argnames="graph")
def _pictures(graph: Any, state: Any, tokens: jax.Array) -> jax.Array:
    vqvae = nnx.merge(graph, state)
    pyramid = vqvae.config.pyramid
    maps = tuple(tokens[:, pyramid.window(k, k + 1)] for k in range(pyramid.num_scales))
    return (vqvae.decode_tokens(maps) + 1.0) / 2.0


def pictures_of_tokens(vqvae: VQVAE, tokens: np.ndarray, batch_size: int) -> np.ndarray:
    """Pictures float32 [n, side, side, 3] in [0, 1] of tokens int32 [n, total_length]."""
    graph, state = nnx.split(vqvae)
    made = []
    for first in range(0, len(tokens), batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), len(tokens) - 1)
        batch = np.asarray(_pictures(graph, state, jnp.asarray(tokens[rows], jnp.int32)))
        made.append(batch[: len(tokens) - first])
    return np.concatenate(made)


def sample_sheet(
    model: VAR,
    vqvae: VQVAE,
    class_names: Sequence[str],
    sampling: SamplingConfig,
    *,
    columns: int = 8,
    seed: int = 0,
    batch_size: int = 128,
) -> Image.Image:
    """A sheet of pictures that a model draws, one row a class.

    Args:
      model: the VAR.
      vqvae: its VQVAE.
      class_names: one a class.
      sampling: guidance and filtering.
      columns: pictures of each class.
      seed: of the noise.
      batch_size: pictures a program call.
    """
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), columns)
    drawn = draw_samples(model, vqvae.quantizer, labels, sampling, seed, batch_size)
    images = pictures_of_tokens(vqvae, drawn.tokens, batch_size)
    captions = [name if place == 0 else "" for name in class_names for place in range(columns)]
    return image_grid(images, captions, columns=columns)


def reconstruction_sheet(vqvae: VQVAE, images: np.ndarray) -> Image.Image:
    """Pictures uint8 [n, side, side, 3], each with its reconstruction to the right."""
    pictures = images.astype(np.float32) / 255.0
    signed = jnp.asarray(pictures * 2.0 - 1.0)
    made = (nnx.jit(VQVAE.reconstruct)(vqvae, signed) + 1.0) / 2.0
    pairs = np.stack([pictures, np.asarray(made)], axis=1).reshape(-1, *pictures.shape[1:])
    return image_grid(pairs, columns=8)
