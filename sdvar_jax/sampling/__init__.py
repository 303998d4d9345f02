"""From logits to tokens: guidance, filtering, noise.

The settings load without JAX.
"""

from typing import TYPE_CHECKING

from sdvar_jax.lazy_names import lazy_names
from sdvar_jax.sampling.config import SamplingConfig

if TYPE_CHECKING:
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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sdvar_jax.sampling.filtering": ("filter_logits", "keep_threshold"),
        "sdvar_jax.sampling.guidance": (
            "double_batch",
            "guidance_by_scale",
            "guide",
            "split_halves",
        ),
        "sdvar_jax.sampling.noise": ("gumbel_noise", "uniform_noise"),
    },
)
