"""The published model sizes by name."""

from __future__ import annotations

from sdvar_jax.config.pyramid import PYRAMID_512
from sdvar_jax.config.var import VARConfig
from sdvar_jax.errors import SdvarError

PRESETS: dict[str, VARConfig] = {
    "d16": VARConfig.of_depth(16),
    "d20": VARConfig.of_depth(20),
    "d24": VARConfig.of_depth(24),
    "d30": VARConfig.of_depth(30),
    "d36": VARConfig.of_depth(36, pyramid=PYRAMID_512, shared_aln=True),
}


def preset(name: str) -> VARConfig:
    """The configuration of a published size: d16, d20, d24, d30 (256 px) or d36 (512 px)."""
    if name not in PRESETS:
        raise SdvarError(f"unknown model size {name!r}; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
