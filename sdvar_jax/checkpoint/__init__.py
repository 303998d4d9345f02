"""Checkpoints on disk, and models built from arrays."""

from sdvar_jax.checkpoint.assembly import abstract_arrays, abstract_model, assemble
from sdvar_jax.checkpoint.compatibility import check_compatible, check_draft
from sdvar_jax.checkpoint.info import CheckpointInfo, PartInfo, Source, read_info
from sdvar_jax.checkpoint.resolve import named_models, resolve_model
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
