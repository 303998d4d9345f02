"""How often a draft draws what the target draws."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from sdvar_jax.decoding.request import Request, TokenSampling, make_request
from sdvar_jax.decoding.window import (
    Window,
    class_modulations,
    draw_tokens,
    forward_window,
)
from sdvar_jax.models import VAR, Quantizer
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training.drawing import decode_batch, split_pair


@functools.partial(jax.jit, static_argnames=("graphs", "sampling"))
def _answer(
    graphs: Any, states: Any, f_hats: jax.Array, request: Request, sampling: TokenSampling
) -> jax.Array:
    model, quantizer = (nnx.merge(*pair) for pair in zip(graphs, states, strict=True))
    pyramid = model.config.pyramid
    everything = Window(0, pyramid.num_scales)
    modulations = class_modulations(model, request, sampling)
    rows = modulations.condition.shape[0]
    cache = model.make_cache(rows)
    logits, _ = forward_window(
        model, quantizer, modulations, f_hats, cache, everything, request, sampling
    )
    return draw_tokens(logits, request, sampling, pyramid, everything)


def measure_agreement(
    target: VAR,
    draft: VAR,
    quantizer: Quantizer,
    labels: np.ndarray,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int,
) -> Mapping[str, Any]:
    """How often the draft draws what the target draws, given the target's own scales before.

    Both draw with the same Gumbel noise, so a scale that agrees entirely is one that the exact
    rule of speculative decoding accepts.

    Args:
      target: draws the pictures.
      draft: is measured.
      quantizer: shared.
      labels: int [n].
      sampling: guidance and filtering of both.
      seed: of the noise.
      batch_size: pictures a call.

    Returns:
      "tokens": share of equal tokens; "tokens_by_scale"; "scales": mean share of scales that are
      equal entirely; "scales_by_scale"; "pictures": how many were measured.
    """
    pyramid = target.config.pyramid
    settings = TokenSampling.of(sampling, pyramid.num_scales)
    target_graphs, target_states = split_pair(target, quantizer)
    draft_graphs, draft_states = split_pair(draft, quantizer)
    equal = []
    for first in range(0, len(labels), batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), len(labels) - 1)
        request = make_request(labels[rows], seed, sampling, pyramid, first_sample=first)
        tokens, f_hats = decode_batch(target_graphs, target_states, request, settings)
        answer = _answer(draft_graphs, draft_states, f_hats, request, settings)
        equal.append(np.asarray(tokens == answer)[: len(labels) - first])
    agreed = np.concatenate(equal)  # [n, total_length]
    windows = [pyramid.window(scale, scale + 1) for scale in range(pyramid.num_scales)]
    tokens_by_scale = [float(np.mean(agreed[:, window])) for window in windows]
    scales_by_scale = [float(np.mean(np.all(agreed[:, window], axis=1))) for window in windows]
    return {
        "tokens": float(np.mean(agreed)),
        "tokens_by_scale": tokens_by_scale,
        "scales": float(np.mean(scales_by_scale)),
        "scales_by_scale": scales_by_scale,
        "pictures": len(labels),
    }
