"""Measuring a VQVAE on held-out pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config import DTypePolicy, VQVAEConfig
from sdvar_jax.training.state import Params
from sdvar_jax.training.templates import build_vqvae
from sdvar_jax.training.vqvae.codebook import perplexity
from sdvar_jax.training.vqvae.losses import psnr

_BATCH = 64


def make_vqvae_evaluation(
    config: VQVAEConfig, dtypes: DTypePolicy, images: np.ndarray
) -> Callable[[Params], Mapping[str, float]]:
    """A function that measures weights.

    Args:
      config: the VQVAE's shapes.
      dtypes: of the arithmetic.
      images: uint8 [n, side, side, 3], pictures that training does not see.

    Returns:
      weights -> "psnr" (dB, mean over pictures), "l1" (in [-1, 1] units), "codebook_used" (share
      of the entries that occur at all) and "codebook_perplexity" over these pictures.
    """
    count = len(images)
    batch = min(_BATCH, count)

    @jax.jit
    def measure(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        vqvae = build_vqvae(config, params, dtypes)
        pictures = images.astype(jnp.float32) / 127.5 - 1.0
        token_maps = vqvae.tokenize(pictures)
        made = vqvae.decode_tokens(token_maps)
        tokens = jnp.concatenate(token_maps, axis=1)  # [batch, total_length]
        return psnr(made, pictures), jnp.mean(jnp.abs(made - pictures), axis=(1, 2, 3)), tokens

    def evaluate(params: Params) -> Mapping[str, float]:
        ratios: list[np.ndarray] = []
        errors: list[np.ndarray] = []
        tokens: list[np.ndarray] = []
        for first in range(0, count, batch):
            rows = np.minimum(np.arange(first, first + batch), count - 1)
            size = min(batch, count - first)
            got = jax.device_get(measure(params, images[rows]))
            for kept, new in zip((ratios, errors, tokens), got, strict=True):
                kept.append(new[:size])
        use = np.bincount(np.concatenate(tokens).reshape(-1), minlength=config.vocab_size)
        return {
            "psnr": float(np.mean(np.concatenate(ratios))),
            "l1": float(np.mean(np.concatenate(errors))),
            "codebook_used": float(np.mean(use > 0)),
            "codebook_perplexity": float(perplexity(jnp.asarray(use, jnp.float32))),
        }

    return evaluate
