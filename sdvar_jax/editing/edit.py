"""Zero-shot edits: the image's own tokens outside a mask, the model's inside.

As in VAR, "zero-shot task generalization".
"""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config.validation import require
from sdvar_jax.decoding import ForcedTokens
from sdvar_jax.editing.cells import kept_tokens
from sdvar_jax.editing.frame import place_in_frame
from sdvar_jax.editing.regions import Box, composite
from sdvar_jax.image_tokenizer import ImageTokenizer
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.result import SampleResult


@dataclasses.dataclass(frozen=True)
class EditResult:
    """Variants of an edited image.

    Attributes:
      images: float32 [count, side, side, 3] in [0, 1].
      original: the image that was edited, in its frame, float32 [side, side, 3].
      mask: True where it was made anew, bool [side, side].
      kept: which tokens were forced, bool [total_length].
      sampled: the run itself, its images without the original's pixels put back.
    """

    images: np.ndarray
    original: np.ndarray
    mask: np.ndarray
    kept: np.ndarray
    sampled: SampleResult


def force_tokens(tokens: tuple[np.ndarray, ...], kept: np.ndarray) -> ForcedTokens:
    """Tokens to force.

    Args:
      tokens: token map of every scale, int32 [batch, side**2] each.
      kept: True where they are forced, bool [total_length].
    """
    joined = np.concatenate(tokens, axis=1)  # [batch, total_length]
    chex.assert_shape(kept, joined.shape[1:])
    return ForcedTokens(
        tokens=jnp.asarray(joined), forced=jnp.asarray(np.broadcast_to(kept, joined.shape))
    )


def edit_image(
    pipeline: Pipeline,
    image: chex.ArrayNumpy,
    mask: np.ndarray,
    *,
    label: int | None = None,
    count: int = 1,
    tolerance: float = 0.0,
    keep_pixels: bool = True,
    feather: int = 0,
    **sampling: Any,
) -> EditResult:
    """Makes the masked part of an image anew.

    Args:
      pipeline: the models.
      image: [side, side, 3] in [0, 1].
      mask: True where it is made anew, bool [side, side].
      label: class of what is made; None leaves the class open, as VAR's in-painting does.
      count: variants; they differ in their noise alone.
      tolerance: see ``editing.kept_tokens``.
      keep_pixels: put the original's pixels back outside the mask: the VQVAE changes them a bit.
      feather: width of the seam in pixels, see ``editing.softened``.
      **sampling: further arguments of ``Pipeline.sample``.

    Raises:
      SdvarError: the mask, the label or a setting is refused.
    """
    side = pipeline.vqvae.config.image_side
    chex.assert_shape(image, (side, side, 3))
    chex.assert_shape(mask, (side, side))
    require(count >= 1, f"count must be at least 1, got {count}")
    require(feather >= 0, f"feather must not be negative, got {feather}")
    config = pipeline.target.config
    kept = kept_tokens(mask, config.pyramid, tolerance)
    labels = [config.unconditional_label if label is None else label] * count
    pipeline.check_labels(labels)
    tokens = ImageTokenizer(pipeline.vqvae).tokenize(image[None])
    forced = force_tokens(tuple(np.repeat(each, count, axis=0) for each in tokens), kept)
    sampled = pipeline.sample(labels, forced=forced, **sampling)
    images = sampled.images
    if keep_pixels:
        images = composite(image, images, mask, feather)
    return EditResult(
        images=images,
        original=np.asarray(image, np.float32),
        mask=mask,
        kept=kept,
        sampled=sampled,
    )


def inpaint(
    pipeline: Pipeline, image: chex.ArrayNumpy, region: Box | np.ndarray, **options: Any
) -> EditResult:
    """Fills a box or mask from what surrounds it; ``options`` as in ``edit_image``."""
    return edit_image(pipeline, image, _mask(region, image), **options)


def outpaint(
    pipeline: Pipeline,
    image: chex.ArrayNumpy,
    *,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
    **options: Any,
) -> EditResult:
    """Continues an image beyond its border.

    Args:
      pipeline: the models.
      image: [side, side, 3] in [0, 1].
      zoom: see ``editing.place_in_frame``.
      shift: likewise.
      **options: as in ``edit_image``.
    """
    frame = place_in_frame(image, zoom, shift)
    return edit_image(pipeline, frame.image, frame.mask, **options)


def edit_class(
    pipeline: Pipeline,
    image: chex.ArrayNumpy,
    label: int,
    region: Box | np.ndarray,
    **options: Any,
) -> EditResult:
    """Puts something of another class into a box or mask; ``options`` as in ``edit_image``."""
    return edit_image(pipeline, image, _mask(region, image), label=label, **options)


def _mask(region: Box | np.ndarray, image: chex.ArrayNumpy) -> np.ndarray:
    return region.mask(image.shape[0]) if isinstance(region, Box) else region
