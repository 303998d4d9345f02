"""The one accumulator: f_hat before each scale, a function of the tokens alone.

Draft and target share it. Only the functions here write it, so it can neither be updated twice
nor run apart between the two models, and taking scales back needs no undo: entries behind the
committed scale are scratch and are overwritten.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from sdvar_jax.models import Quantizer

NO_TOKEN = -1
"""Stands for "nothing proposed": adds nothing to f_hat and equals no token."""


def initial_f_hats(quantizer: Quantizer, batch: int) -> jax.Array:
    """Room for f_hat before each scale and after the last, zeros.

    Returns:
      float32 [num_scales + 1, batch, latent, latent, latent_channels].
    """
    empty = quantizer.initial_f_hat(batch)
    return jnp.zeros((quantizer.config.pyramid.num_scales + 1, *empty.shape), empty.dtype)


def extend(quantizer: Quantizer, f_hats: jax.Array, tokens: jax.Array, scale: int) -> jax.Array:
    """Writes f_hat after ``scale`` from f_hat before it and the scale's tokens.

    Args:
      quantizer: the shared quantizer.
      f_hats: see ``initial_f_hats``; valid up to entry ``scale``.
      tokens: int32 [batch, side**2]; a sample whose tokens are ``NO_TOKEN`` adds nothing.
      scale: 0-based scale.

    Returns:
      ``f_hats`` with entry ``scale + 1`` written.
    """
    chex.assert_shape(tokens, (f_hats.shape[1], quantizer.config.pyramid.lengths[scale]))
    added = quantizer.residual(quantizer.embed(jnp.maximum(tokens, 0)), scale)
    known = (tokens[:, :1] >= 0)[:, :, None, None]  # [batch, 1, 1, 1]
    return f_hats.at[scale + 1].set(f_hats[scale] + jnp.where(known, added, 0.0))
