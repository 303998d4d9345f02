"""Time of one forward of one model over a window of scales, alone or with drawing its tokens.

The forward is repeated inside one compiled loop, each pass fed from the one before it, so that
neither the launch from the host nor a copy of the KV cache is counted, and no pass can be left out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.timing import Timing, measure
from sdvar_jax.decoding import Request, TokenSampling
from sdvar_jax.decoding.f_hat import extend
from sdvar_jax.decoding.request import with_noise
from sdvar_jax.decoding.window import Window, class_modulations, draw_tokens, forward_window
from sdvar_jax.models import VAR, KVCache, Quantizer

_PASSES = 20
_TOKENS_A_CALL = 1 << 17
# Far below rounding: ties each pass to the one before it and changes nothing.
_TIE = 1e-30


@dataclasses.dataclass(frozen=True)
class _Static:
    model: Any
    quantizer: Any
    sampling: TokenSampling
    window: Window
    passes: int
    drawing: bool


def _draw(
    static: _Static,
    quantizer: Quantizer,
    f_hats: jax.Array,
    logits: jax.Array,
    request: Request,
) -> jax.Array:
    """Draws the window's tokens and brings f_hats in step, as decoders do after a forward."""
    pyramid, window = quantizer.config.pyramid, static.window
    tokens = draw_tokens(logits, request, static.sampling, pyramid, window)
    first = pyramid.offsets[window.start]
    for scale in window.scales:
        here = tokens[:, pyramid.offsets[scale] - first : pyramid.offsets[scale + 1] - first]
        f_hats = extend(quantizer, f_hats, here, scale)
    return f_hats[window.start + 1 : window.stop + 1]


def _run_passes(
    static: _Static,
    weights: Any,
    modulations: Any,
    f_hats: jax.Array,
    request: Request,
    cache: KVCache,
) -> tuple[jax.Array, KVCache]:
    model = nnx.merge(static.model, weights[0])
    quantizer = nnx.merge(static.quantizer, weights[1])

    def one_pass(_: int, carry: tuple[jax.Array, KVCache]) -> tuple[jax.Array, KVCache]:
        tie, cache = carry
        condition = modulations.condition + tie.astype(modulations.condition.dtype)
        result, cache = forward_window(
            model,
            quantizer,
            modulations.replace(condition=condition),
            f_hats + tie,
            cache,
            static.window,
            request,
            static.sampling,
        )
        if static.drawing:
            result = _draw(static, quantizer, f_hats, result, request)
        # All of the result is wanted, not the one number that ties the passes together.
        result = jax.lax.optimization_barrier(result)
        return jnp.ravel(result)[0] * _TIE, cache

    tie = jnp.zeros((), jnp.float32)
    return jax.lax.fori_loop(0, static.passes, one_pass, (tie, cache))


_jitted = jax.jit(_run_passes, static_argnames=("static",), donate_argnames=("cache",))


class ForwardTimer:
    """Times forwards of one model at one batch size; the arrays are made once.

    Args:
      model: draft or target.
      quantizer: the shared quantizer.
      request: fixes the batch.
      sampling: what of sampling is compiled in.
    """

    def __init__(
        self, model: VAR, quantizer: Quantizer, request: Request, sampling: TokenSampling
    ) -> None:
        self._pyramid, self._vocab = model.config.pyramid, model.config.vocab_size
        self._request, self._sampling = request, sampling
        self._model, weights = nnx.split(model)
        self._quantizer, quantizer_weights = nnx.split(quantizer)
        self._weights = (weights, quantizer_weights)
        self._modulations = jax.jit(
            lambda weights: class_modulations(nnx.merge(self._model, weights), request, sampling)
        )(weights)
        side, channels = self._pyramid.latent_side, model.config.latent_channels
        scales = self._pyramid.num_scales
        shape = (scales + 1, request.batch, side, side, channels)
        self._f_hats = jax.random.normal(jax.random.key(1), shape, jnp.float32)
        empty = model.make_cache(self._modulations.condition.shape[0])
        keys = jax.random.split(jax.random.key(2), 2)
        self._cache = KVCache(
            keys=tuple(0.1 * jax.random.normal(keys[0], k.shape, k.dtype) for k in empty.keys),
            values=tuple(jax.random.normal(keys[1], v.shape, v.dtype) for v in empty.values),
        )

    def tokens(self, window: Window) -> int:
        """Positions of the window in one sample."""
        return len(window.positions(self._pyramid))

    def time(self, window: Window, repeats: int, *, drawing: bool = False) -> Timing:
        """Seconds of one forward over the window, head and guidance included.

        Args:
          window: the scales.
          repeats: measured calls.
          drawing: count drawing the tokens and the quantizer too.
        """
        if drawing and self._request.noise is None:
            # Decoders draw the noise once a run, not once a forward.
            add_noise = jax.jit(with_noise, static_argnums=(1, 2))
            self._request = add_noise(self._request, self._pyramid, self._vocab)
        rows = self._request.batch * (2 if window.guided(self._sampling) else 1)
        passes = max(2, min(_PASSES, _TOKENS_A_CALL // (rows * self.tokens(window))))
        static = _Static(self._model, self._quantizer, self._sampling, window, passes, drawing)
        executable = _jitted.lower(
            static, self._weights, self._modulations, self._f_hats, self._request, self._cache
        ).compile()

        def call() -> jax.Array:
            probe, self._cache = executable(
                self._weights, self._modulations, self._f_hats, self._request, self._cache
            )
            return probe

        return measure(call, repeats) / passes
