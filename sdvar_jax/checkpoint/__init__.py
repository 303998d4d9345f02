"""Checkpoints on disk, and models built from arrays.

What only describes checkpoints loads without JAX.
"""

from typing import TYPE_CHECKING

from sdvar_jax.checkpoint.compatibility import check_compatible, check_draft
from sdvar_jax.checkpoint.info import CheckpointInfo, PartInfo, Source, read_info
from sdvar_jax.checkpoint.resolve import named_models, resolve_model
from sdvar_jax.lazy_names import lazy_names

if TYPE_CHECKING:
    from sdvar_jax.checkpoint.assembly import abstract_arrays, abstract_model, assemble
    from sdvar_jax.checkpoint.store import (
        Checkpoint,
        PartWeights,
        load_checkpoint,
        load_weights,
        save_checkpoint,
    )

__all__ = [
    "Checkpoint",
    "CheckpointInfo",
    "PartInfo",
    "PartWeights",
    "Source",
    "abstract_arrays",
    "abstract_model",
    "assemble",
    "check_compatible",
    "check_draft",
    "load_checkpoint",
    "load_weights",
    "named_models",
    "read_info",
    "resolve_model",
    "save_checkpoint",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "sdvar_jax.checkpoint.assembly": ("abstract_arrays", "abstract_model", "assemble"),
        "sdvar_jax.checkpoint.store": (
            "Checkpoint",
            "PartWeights",
            "load_checkpoint",
            "load_weights",
            "save_checkpoint",
        ),
    },
)
