"""One forward of one model over a window of consecutive scales.

The parts that every decoder shares: building the query of a window from f_hat, running it over
the KV cache, splitting its logits by scale and by guidance half, drawing its tokens.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding.request import Request, TokenSampling
from sdvar_jax.models import VAR, KVCache, Modulations, Quantizer, block_causal_mask
from sdvar_jax.sampling import double_batch, filter_logits, guide, gumbel_noise


@dataclasses.dataclass(frozen=True)
class Window:
    """The scales ``start`` to ``stop`` (exclusive) of a pyramid; all static."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"an empty or negative window {self.start}..{self.stop}")

    @property
    def scales(self) -> range:
        """The scales of the window."""
        return range(self.start, self.stop)

    def positions(self, pyramid: ScalePyramid) -> np.ndarray:
        """Positions of its tokens, int32 [length]."""
        window = pyramid.window(self.start, self.stop)
        return np.arange(window.start, window.stop, dtype=np.int32)

    def guided(self, sampling: TokenSampling) -> bool:
        """Whether any of its scales needs the unconditional half."""
        return self.start < sampling.guided_until


def first_rows(modulations: Modulations, rows: int) -> Modulations:
    """The modulations of the first ``rows`` rows (the conditional half)."""
    return jax.tree.map(lambda array: array[:rows], modulations)


def class_modulations(model: VAR, request: Request, sampling: TokenSampling) -> Modulations:
    """Modulations of the whole run, [2 * batch] rows under guidance, else [batch]."""
    labels = request.labels
    if sampling.guided_until > 0:
        unconditional = jnp.full_like(labels, model.config.unconditional_label)
        labels = jnp.concatenate([labels, unconditional])
    return model.modulations(labels)


def build_query(
    model: VAR,
    quantizer: Quantizer,
    modulations: Modulations,
    f_hats: jax.Array,
    window: Window,
    rows: int,
) -> jax.Array:
    """The transformer's embedded input at every position of a window.

    The input of scale s is made from f_hat after scale s-1, never from the tokens themselves;
    positions and level embeddings are those of the scale itself; the guidance halves get the same
    f_hat and their own class.

    Args:
      model: draft or target.
      quantizer: the shared quantizer.
      modulations: of at least ``rows`` rows.
      f_hats: [num_scales + 1, batch, latent, latent, channels]; entry s is f_hat before scale s.
      window: the scales.
      rows: batch, or 2 * batch under guidance.

    Returns:
      [rows, window length, width] in the model's compute dtype.
    """
    batch = f_hats.shape[1]
    chex.assert_is_divisible(rows, batch)
    parts = []
    for scale in window.scales:
        if scale == 0:
            parts.append(model.embed_first(first_rows(modulations, rows)))
            continue
        embedded = model.embed_scale(quantizer.scale_input(f_hats[scale], scale), scale)
        parts.append(embedded if rows == batch else double_batch(embedded))
    query = jnp.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    length = len(window.positions(model.config.pyramid))
    chex.assert_shape(query, (rows, length, model.config.width))
    return query


def window_mask(pyramid: ScalePyramid, window: Window) -> np.ndarray | None:
    """Block-causal mask of a window over the cache, bool [length, keys]; None for one scale."""
    if window.stop - window.start == 1:
        return None
    return block_causal_mask(pyramid, window.start, window.stop)


def split_by_scale(
    array: jax.Array, pyramid: ScalePyramid, window: Window
) -> tuple[jax.Array, ...]:
    """Splits [batch, window length, ...] into one array a scale, [batch, side**2, ...] each.

    Raises:
      ValueError: the window reaches outside the pyramid.
      AssertionError: the array's length is not the window's.
    """
    if window.stop > pyramid.num_scales:
        raise ValueError(
            f"window {window.start}..{window.stop} reaches outside {pyramid.num_scales} scales"
        )
    start = pyramid.offsets[window.start]
    chex.assert_axis_dimension(array, 1, pyramid.offsets[window.stop] - start)
    return tuple(
        array[:, pyramid.offsets[scale] - start : pyramid.offsets[scale + 1] - start]
        for scale in window.scales
    )


def guide_window(
    logits: jax.Array,
    request: Request,
    sampling: TokenSampling,
    pyramid: ScalePyramid,
    window: Window,
) -> jax.Array:
    """Guided logits of a window, each scale with its own strength.

    Args:
      logits: float32 [rows, window length, vocab], rows = 2 * batch where the window is guided,
        else batch.
      request: for the strengths.
      sampling: scales from ``guided_until`` on drop the unconditional half unused.
      pyramid: the scales.
      window: the scales of ``logits``.

    Returns:
      float32 [batch, window length, vocab].
    """
    batch = request.batch
    chex.assert_axis_dimension(logits, 0, 2 * batch if window.guided(sampling) else batch)
    parts = [
        guide(
            part if scale < sampling.guided_until else part[:batch], request.guidance[scale], batch
        )
        for scale, part in zip(window.scales, split_by_scale(logits, pyramid, window), strict=True)
    ]
    return jnp.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]


def forward_window(
    model: VAR,
    quantizer: Quantizer,
    modulations: Modulations,
    f_hats: jax.Array,
    cache: KVCache,
    window: Window,
    request: Request,
    sampling: TokenSampling,
    *,
    mask: np.ndarray | None = None,
    logits_of: Window | None = None,
) -> tuple[jax.Array, KVCache]:
    """Runs a window through a model and returns its guided logits.

    Args:
      model: draft or target.
      quantizer: the shared quantizer.
      modulations: of the whole run.
      f_hats: f_hat before each scale, see ``build_query``.
      cache: valid up to the window's start.
      window: the scales to run.
      request: the run's arrays.
      sampling: what is compiled in.
      mask: replaces the block-causal mask, bool [length, keys].
      logits_of: the end of the window whose logits are wanted; None for all of it.

    Returns:
      float32 [batch, length of ``logits_of``, vocab] after guidance, and the cache with the window
      written.
    """
    pyramid = model.config.pyramid
    rows = request.batch * (2 if window.guided(sampling) else 1)
    modulations = first_rows(modulations, rows)
    query = build_query(model, quantizer, modulations, f_hats, window, rows)
    mask = window_mask(pyramid, window) if mask is None else mask
    hidden, cache = model.hidden(
        query,
        modulations,
        cache,
        pyramid.offsets[window.start],
        mask,
    )
    wanted = window if logits_of is None else logits_of
    skipped = pyramid.offsets[wanted.start] - pyramid.offsets[window.start]
    rows = request.batch * (2 if wanted.guided(sampling) else 1)
    logits = model.logits(hidden[:rows, skipped:], first_rows(modulations, rows))
    return guide_window(logits, request, sampling, pyramid, wanted), cache


def filtered(logits: jax.Array, request: Request, sampling: TokenSampling) -> jax.Array:
    """Logits after top-k and top-p, shape kept."""
    if not sampling.filtering:
        return logits
    return filter_logits(logits, request.top_k, request.top_p, sampling.filter_method)


def window_noise(request: Request, pyramid: ScalePyramid, window: Window, vocab: int) -> jax.Array:
    """The shared Gumbel noise of a window, float32 [batch, length, vocab]."""
    if request.noise is not None:
        chex.assert_shape(request.noise, (request.batch, pyramid.total_length, vocab))
        return request.noise[:, pyramid.window(window.start, window.stop)]
    positions = jnp.asarray(window.positions(pyramid))
    return gumbel_noise(request.seed, request.sample_ids, positions, vocab)


def draw_tokens(
    logits: jax.Array,
    request: Request,
    sampling: TokenSampling,
    pyramid: ScalePyramid,
    window: Window,
) -> jax.Array:
    """Tokens drawn from guided logits under the shared noise.

    Args:
      logits: float32 [batch, length, vocab], guided and not yet filtered.
      request: the run's arrays.
      sampling: what is compiled in.
      pyramid: the scales.
      window: the scales of ``logits``.

    Returns:
      int32 [batch, length].
    """
    return draw_filtered(filtered(logits, request, sampling), request, pyramid, window)


def draw_filtered(
    logits: jax.Array, request: Request, pyramid: ScalePyramid, window: Window
) -> jax.Array:
    """As ``draw_tokens``, from logits that are filtered already."""
    noise = window_noise(request, pyramid, window, logits.shape[-1])
    tokens = jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)
    return apply_forced(tokens, request, pyramid, window)


def apply_forced(
    tokens: jax.Array, request: Request, pyramid: ScalePyramid, window: Window
) -> jax.Array:
    """Replaces drawn tokens [batch, length] by those given from outside, where there are any."""
    if request.forced is None:
        return tokens
    place = pyramid.window(window.start, window.stop)
    return jnp.where(request.forced.forced[:, place], request.forced.tokens[:, place], tokens)
