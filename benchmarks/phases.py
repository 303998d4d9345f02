"""Time of the phases of target-only decoding other than the transformer's forwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.timing import Timing, measure
from sdvar_jax.decoding import Request, TokenSampling
from sdvar_jax.decoding.f_hat import extend, initial_f_hats
from sdvar_jax.decoding.request import with_noise
from sdvar_jax.decoding.window import Window, class_modulations, draw_tokens
from sdvar_jax.models import VAR, Quantizer


def _random_logits(model: VAR, batch: int) -> tuple[jax.Array, ...]:
    """float32 [batch, side**2, vocab] a scale."""
    lengths, vocab = model.config.pyramid.lengths, model.config.vocab_size
    keys = jax.random.split(jax.random.key(3), len(lengths))
    return tuple(
        jax.random.normal(key, (batch, length, vocab), jnp.float32)
        for key, length in zip(keys, lengths, strict=True)
    )


def _time(function: Callable[..., Any], repeats: int, *arguments: Any) -> Timing:
    executable = jax.jit(function).lower(*arguments).compile()
    return measure(lambda: executable(*arguments), repeats)


def time_modulations(model: VAR, request: Request, sampling: TokenSampling, repeats: int) -> Timing:
    """Class embedding and AdaLN vectors of all blocks, once an image."""
    definition, weights = nnx.split(model)
    return _time(
        lambda weights, request: class_modulations(
            nnx.merge(definition, weights), request, sampling
        ),
        repeats,
        weights,
        request,
    )


def time_noise(model: VAR, request: Request, repeats: int) -> Timing:
    """The shared noise of all positions, once a run."""
    config = model.config
    return _time(
        lambda request: with_noise(request, config.pyramid, config.vocab_size).noise,
        repeats,
        request,
    )


def time_drawing(model: VAR, request: Request, sampling: TokenSampling, repeats: int) -> Timing:
    """Filtering, adding the noise and argmax of all scales; the noise is there already."""
    config = model.config

    def run(request: Request, logits: tuple[jax.Array, ...]) -> list[jax.Array]:
        return [
            draw_tokens(part, request, sampling, config.pyramid, Window(scale, scale + 1))
            for scale, part in enumerate(logits)
        ]

    request = jax.jit(with_noise, static_argnums=(1, 2))(request, config.pyramid, config.vocab_size)
    return _time(run, repeats, request, _random_logits(model, request.batch))


def time_quantizer(quantizer: Quantizer, batch: int, repeats: int) -> Timing:
    """f_hat after every scale and the transformer's input of every scale."""
    pyramid = quantizer.config.pyramid
    definition, weights = nnx.split(quantizer)
    shape, vocab = (batch, pyramid.total_length), quantizer.config.vocab_size
    tokens = jax.random.randint(jax.random.key(4), shape, 0, vocab)

    def run(weights: Any, tokens: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        quantizer = nnx.merge(definition, weights)
        f_hats, inputs = initial_f_hats(quantizer, batch), []
        for scale in range(pyramid.num_scales):
            if scale:
                inputs.append(quantizer.scale_input(f_hats[scale], scale))
            place = pyramid.window(scale, scale + 1)
            f_hats = extend(quantizer, f_hats, tokens[:, place], scale)
        return f_hats, inputs

    return _time(run, repeats, weights, tokens)


def phase_timings(
    model: VAR, quantizer: Quantizer, request: Request, sampling: TokenSampling, repeats: int
) -> Iterator[tuple[str, Timing]]:
    """Every phase with its time, one after the other."""
    yield "modulations", time_modulations(model, request, sampling, repeats)
    yield "noise", time_noise(model, request, repeats)
    yield "filtering and drawing", time_drawing(model, request, sampling, repeats)
    if sampling.filtering:
        unfiltered = dataclasses.replace(sampling, filtering=False)
        yield "drawing alone", time_drawing(model, request, unfiltered, repeats)
    yield "quantizer", time_quantizer(quantizer, request.batch, repeats)
