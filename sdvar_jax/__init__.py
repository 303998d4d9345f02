"""VAR image generation in JAX and Flax, with speculative decoding at the level of scales.

What users need stands here; ``import sdvar_jax`` itself loads nothing, each name its module when
it is first used::

    import sdvar_jax as sdvar

    pipeline = sdvar.load_pipeline("checkpoints/d30", draft="checkpoints/d16")
    result = pipeline.sample([207, 88], seed=1, decoder=sdvar.Speculative(gamma=3))
    sdvar.image_grid(result.images).save("grid.png")
"""

# The imports for type checkers are used by nobody here.
# ruff: noqa: F401
from __future__ import annotations

from typing import TYPE_CHECKING

from sdvar_jax.lazy_names import lazy_names

__version__ = "0.1.0"

_HOMES = {
    "sdvar_jax.checkpoint": (
        "Checkpoint",
        "CheckpointInfo",
        "load_checkpoint",
        "named_models",
        "read_info",
        "save_checkpoint",
    ),
    "sdvar_jax.config": (
        "BFLOAT16",
        "FLOAT32",
        "PRESETS",
        "DTypePolicy",
        "ScalePyramid",
        "VARConfig",
        "VQVAEConfig",
        "preset",
    ),
    "sdvar_jax.decoding": (
        "Decoder",
        "DraftOnly",
        "ForcedTokens",
        "Handoff",
        "TargetOnly",
    ),
    "sdvar_jax.decoding.speculative": ("AcceptanceRule", "Speculative", "acceptance_rule"),
    "sdvar_jax.editing": ("Box", "EditResult", "edit_class", "edit_image", "inpaint", "outpaint"),
    "sdvar_jax.errors": ("SdvarError",),
    "sdvar_jax.image_tokenizer": ("ImageTokenizer", "Reconstruction", "psnr"),
    "sdvar_jax.imaging": (
        "comparison_grid",
        "image_grid",
        "load_image",
        "save_png",
        "scale_strip",
    ),
    "sdvar_jax.labels": ("class_names", "resolve_labels"),
    "sdvar_jax.loading": ("choose_dtypes", "find_models", "load_pipeline", "load_vqvae"),
    "sdvar_jax.models": ("VAR", "VQVAE"),
    "sdvar_jax.pipeline": ("Pipeline",),
    "sdvar_jax.result": ("SampleResult",),
    "sdvar_jax.runtime.compilation_cache": ("enable_compilation_cache",),
    "sdvar_jax.sampling": ("SamplingConfig",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME_OF)]

if TYPE_CHECKING:
    from sdvar_jax.checkpoint import (
        Checkpoint,
        CheckpointInfo,
        load_checkpoint,
        named_models,
        read_info,
        save_checkpoint,
    )
    from sdvar_jax.config import (
        BFLOAT16,
        FLOAT32,
        PRESETS,
        DTypePolicy,
        ScalePyramid,
        VARConfig,
        VQVAEConfig,
        preset,
    )
    from sdvar_jax.decoding import Decoder, DraftOnly, ForcedTokens, Handoff, TargetOnly
    from sdvar_jax.decoding.speculative import AcceptanceRule, Speculative, acceptance_rule
    from sdvar_jax.editing import Box, EditResult, edit_class, edit_image, inpaint, outpaint
    from sdvar_jax.errors import SdvarError
    from sdvar_jax.image_tokenizer import ImageTokenizer, Reconstruction, psnr
    from sdvar_jax.imaging import (
        comparison_grid,
        image_grid,
        load_image,
        save_png,
        scale_strip,
    )
    from sdvar_jax.labels import class_names, resolve_labels
    from sdvar_jax.loading import choose_dtypes, find_models, load_pipeline, load_vqvae
    from sdvar_jax.models import VAR, VQVAE
    from sdvar_jax.pipeline import Pipeline
    from sdvar_jax.result import SampleResult
    from sdvar_jax.runtime.compilation_cache import enable_compilation_cache
    from sdvar_jax.sampling import SamplingConfig


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
