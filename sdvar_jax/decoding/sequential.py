"""Scale by scale with one model: VAR's own decoding (VAR, algorithm of section 3.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.decoding.f_hat import extend, initial_f_hats
from sdvar_jax.decoding.request import Request, TokenSampling, with_noise
from sdvar_jax.decoding.window import (
    Window,
    draw_tokens,
    filtered,
    forward_window,
)
from sdvar_jax.models import VAR, KVCache, Modulations, Quantizer
from sdvar_jax.sampling import gumbel_noise
from sdvar_jax.sampling.noise import SMOOTH_STREAM

_MIN_TEMPERATURE = 0.005
_MAX_TEMPERATURE = 0.27
_COOLING = 0.95


def smooth_embedding(
    logits: jax.Array,
    quantizer: Quantizer,
    request: Request,
    sampling: TokenSampling,
    window: Window,
) -> jax.Array:
    """Gumbel-softmax mixture of codebook entries (``more_smooth`` of the original).

    The temperature falls from 0.27 at the first scale towards 0.0135 at the last, on logits
    sharpened by 1 + ratio.

    Args:
      logits: guided, float32 [batch, side**2, vocab].
      quantizer: for the codebook.
      request: the run's arrays.
      sampling: what is compiled in.
      window: the one scale of ``logits``.

    Returns:
      float32 [batch, side**2, latent_channels].
    """
    pyramid = quantizer.config.pyramid
    ratio = window.start / (pyramid.num_scales - 1)
    temperature = max(_MAX_TEMPERATURE * (1 - _COOLING * ratio), _MIN_TEMPERATURE)
    noise = gumbel_noise(
        request.seed,
        request.sample_ids,
        jnp.asarray(window.positions(pyramid)),
        logits.shape[-1],
        SMOOTH_STREAM,
    )
    sharpened = filtered(logits, request, sampling) * (1 + ratio)
    weights = jax.nn.softmax((sharpened + noise) / temperature, axis=-1)
    codebook = quantizer.codebook[...].astype(jnp.float32)
    return jnp.matmul(weights, codebook, precision=jax.lax.Precision.HIGHEST)


def decode_scale(
    model: VAR,
    quantizer: Quantizer,
    modulations: Modulations,
    f_hats: jax.Array,
    cache: KVCache,
    scale: int,
    request: Request,
    sampling: TokenSampling,
    *,
    mask: np.ndarray | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array, KVCache]:
    """Makes one scale.

    Args:
      model: the model that makes it.
      quantizer: the shared quantizer.
      modulations: the model's, of the whole run.
      f_hats: f_hat before each scale, valid up to entry ``scale``.
      cache: the model's, valid up to the scale's start.
      scale: 0-based scale.
      request: the run's arrays.
      sampling: what is compiled in.
      mask: bool [side**2, keys]; None lets the scale see all that is before it and itself.

    Returns:
      Guided logits [batch, side**2, vocab], tokens int32 [batch, side**2], f_hats with entry
      ``scale + 1`` written, the cache with the scale written.
    """
    pyramid, window = model.config.pyramid, Window(scale, scale + 1)
    logits, cache = forward_window(
        model, quantizer, modulations, f_hats, cache, window, request, sampling, mask=mask
    )
    tokens = draw_tokens(logits, request, sampling, pyramid, window)
    f_hats = after_scale(quantizer, f_hats, logits, tokens, scale, request, sampling)
    return logits, tokens, f_hats, cache


def after_scale(
    quantizer: Quantizer,
    f_hats: jax.Array,
    logits: jax.Array,
    tokens: jax.Array,
    scale: int,
    request: Request,
    sampling: TokenSampling,
) -> jax.Array:
    """Writes f_hat after a scale: from its tokens, or under ``more_smooth`` from a mixture.

    Tokens given from outside are never smoothed.
    """
    if not sampling.more_smooth:
        return extend(quantizer, f_hats, tokens, scale)
    window = Window(scale, scale + 1)
    mixture = smooth_embedding(logits, quantizer, request, sampling, window)
    if request.forced is not None:
        place = quantizer.config.pyramid.window(scale, scale + 1)
        forced = request.forced.forced[:, place, None]
        mixture = jnp.where(forced, quantizer.embed(request.forced.tokens[:, place]), mixture)
    return f_hats.at[scale + 1].set(f_hats[scale] + quantizer.residual(mixture, scale))


def decode_sequential(
    model: VAR,
    quantizer: Quantizer,
    modulations: Modulations,
    request: Request,
    sampling: TokenSampling,
) -> tuple[jax.Array, jax.Array]:
    """Decodes all scales with one model.

    Args:
      model: the target, or the draft alone.
      quantizer: the shared quantizer.
      modulations: the model's, of the whole run.
      request: the run's arrays.
      sampling: what is compiled in.

    Returns:
      Tokens int32 [batch, total_length], and f_hats float32 [num_scales + 1, batch, latent,
      latent, latent_channels].
    """
    request = with_noise(request, model.config.pyramid, model.config.vocab_size)
    cache = model.make_cache(modulations.condition.shape[0])
    f_hats = initial_f_hats(quantizer, request.batch)
    token_maps = []
    for scale in range(model.config.pyramid.num_scales):
        _, tokens, f_hats, cache = decode_scale(
            model, quantizer, modulations, f_hats, cache, scale, request, sampling
        )
        token_maps.append(tokens)
    return jnp.concatenate(token_maps, axis=1), f_hats
