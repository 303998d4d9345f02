"""Token maps that a model draws, for pictures on the way and for learning from."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from flax import nnx

from sdvar_jax.decoding.request import Request, TokenSampling, make_request
from sdvar_jax.decoding.sequential import decode_sequential
from sdvar_jax.decoding.window import class_modulations
from sdvar_jax.models import VAR, Quantizer
from sdvar_jax.sampling import SamplingConfig


@functools.partial(jax.jit, static_argnames=("graphs", "sampling"))
def decode_batch(
    graphs: Any, states: Any, request: Request, sampling: TokenSampling
) -> tuple[jax.Array, jax.Array]:
    """Tokens and f_hats of one batch, see ``decode_sequential``; models from ``split_pair``."""
    model, quantizer = (nnx.merge(*pair) for pair in zip(graphs, states, strict=True))
    modulations = class_modulations(model, request, sampling)
    return decode_sequential(model, quantizer, modulations, request, sampling)


def split_pair(model: VAR, quantizer: Quantizer) -> tuple[Any, Any]:
    """Static and array halves of a model and a quantizer, for compiled functions."""
    pairs = [nnx.split(model), nnx.split(quantizer)]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What a model drew.

    Attributes:
      tokens: int32 [n, total_length].
      labels: int32 [n].
    """

    tokens: np.ndarray
    labels: np.ndarray


def draw_samples(
    model: VAR,
    quantizer: Quantizer,
    labels: np.ndarray,
    sampling: SamplingConfig,
    seed: int,
    batch_size: int,
) -> Drawn:
    """Token maps drawn by one model, ``batch_size`` pictures a program call.

    Args:
      model: draft or target.
      quantizer: shared.
      labels: int [n].
      sampling: guidance and filtering.
      seed: of the noise.
      batch_size: pictures a call; the last call is filled up.
    """
    graphs, states = split_pair(model, quantizer)
    settings = TokenSampling.of(sampling, model.config.pyramid.num_scales)
    tokens = []
    for first in range(0, len(labels), batch_size):
        rows = np.minimum(np.arange(first, first + batch_size), len(labels) - 1)
        request = make_request(
            labels[rows], seed, sampling, model.config.pyramid, first_sample=first
        )
        made, _ = decode_batch(graphs, states, request, settings)
        tokens.append(np.asarray(made)[: len(labels) - first])
    return Drawn(np.concatenate(tokens), np.asarray(labels, np.int32))


def balanced_labels(count: int, num_classes: int) -> np.ndarray:
    """``count`` labels that run through the classes, int32 [count]."""
    return (np.arange(count) % num_classes).astype(np.int32)
