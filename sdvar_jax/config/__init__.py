"""Configurations: frozen dataclasses that validate themselves and serialise to plain JSON."""

from sdvar_jax.config.dtypes import BFLOAT16, FLOAT32, DTypePolicy
from sdvar_jax.config.presets import PRESETS, preset
from sdvar_jax.config.pyramid import PYRAMID_256, PYRAMID_512, ScalePyramid
from sdvar_jax.config.var import VARConfig
from sdvar_jax.config.vqvae import VQVAEConfig

__all__ = [
    "BFLOAT16",
    "FLOAT32",
    "PRESETS",
    "PYRAMID_256",
    "PYRAMID_512",
    "DTypePolicy",
    "ScalePyramid",
    "VARConfig",
    "VQVAEConfig",
    "preset",
]
