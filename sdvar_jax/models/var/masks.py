"""The block-causal attention mask: a token sees its own scale and all earlier ones."""

from __future__ import annotations

import numpy as np

from sdvar_jax.config import ScalePyramid


def scale_of_position(pyramid: ScalePyramid) -> np.ndarray:
    """0-based scale of every position, int32 [total_length]."""
    return np.repeat(np.arange(pyramid.num_scales, dtype=np.int32), pyramid.lengths)


def block_causal_mask(pyramid: ScalePyramid, start: int = 0, stop: int | None = None) -> np.ndarray:
    """What the positions of scales ``start`` to ``stop`` (exclusive) see (VAR, section 3.2).

    Args:
      pyramid: the scales.
      start: first scale of the queries.
      stop: scale behind the last; None for all scales.

    Returns:
      bool [queries, keys]; keys are the positions from 0 to the end of the window.
    """
    stop = pyramid.num_scales if stop is None else stop
    scales = scale_of_position(pyramid)
    window = pyramid.window(start, stop)
    return scales[window, None] >= scales[None, : window.stop]
