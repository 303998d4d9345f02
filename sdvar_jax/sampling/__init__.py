"""From logits to tokens: guidance, filtering, noise."""

from sdvar_jax.sampling.config import SamplingConfig
from sdvar_jax.sampling.filtering import filter_logits, keep_threshold
from sdvar_jax.sampling.guidance import double_batch, guidance_by_scale, guide, split_halves
from sdvar_jax.sampling.noise import gumbel_noise, uniform_noise

__all__ = [
    "SamplingConfig",
    "double_batch",
    "filter_logits",
    "guidance_by_scale",
    "guide",
    "gumbel_noise",
    "keep_threshold",
    "split_halves",
    "uniform_noise",
]
