"""The picture of a run: one sample as it stood after each scale, and who made the scale."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sdvar_jax.decoding import Decoder, DraftOnly, Handoff
from sdvar_jax.image_tokenizer import ImageTokenizer
from sdvar_jax.imaging import scale_strip
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.result import SampleResult


def run_strip(
    pipeline: Pipeline, result: SampleResult, decoder: Decoder, sample: int = 0
) -> Image.Image:
    """Draws one sample of a run scale by scale.

    Args:
      pipeline: that made it; its VQVAE decodes the tokens so far.
      result: the run. Under ``more_smooth`` the tokens are not the whole truth.
      decoder: of the run.
      sample: which one.
    """
    sides = pipeline.target.config.pyramid.sides
    tokens = tuple(each[sample : sample + 1] for each in result.tokens)
    images = ImageTokenizer(pipeline.vqvae).decode_each_scale(tokens)[:, 0]
    return scale_strip(
        np.asarray(images),
        [f"{scale + 1}: {side}x{side}" for scale, side in enumerate(sides)],
        scale_makers(result, decoder, len(sides), sample),
    )


def scale_makers(
    result: SampleResult, decoder: Decoder, num_scales: int, sample: int = 0
) -> list[str]:
    """Who made each scale of a sample."""
    if result.statistics is not None:
        names = result.statistics.maker_names
        return [names[maker] for maker in result.statistics.makers[sample]]
    if isinstance(decoder, DraftOnly):
        return ["draft"] * num_scales
    if isinstance(decoder, Handoff):
        first, second = decoder.order.split("-")
        return [first if scale < decoder.entry else second for scale in range(num_scales)]
    return ["target"] * num_scales
