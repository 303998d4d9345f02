"""Training: the VQVAE, the VAR, and a draft distilled from a target."""

from sdvar_jax.training.config import OptimizerConfig, RunConfig
from sdvar_jax.training.distill import DistillConfig, Distilled, distill, measure_agreement
from sdvar_jax.training.var import (
    TokenNoiseConfig,
    TokenSet,
    TrainedVAR,
    VARTrainingConfig,
    tokenize_set,
    train_var,
)
from sdvar_jax.training.vqvae import (
    RevivalConfig,
    TrainedVQVAE,
    VQVAELossConfig,
    VQVAETrainingConfig,
    train_vqvae,
)

__all__ = [
    "DistillConfig",
    "Distilled",
    "OptimizerConfig",
    "RevivalConfig",
    "RunConfig",
    "TokenNoiseConfig",
    "TokenSet",
    "TrainedVAR",
    "TrainedVQVAE",
    "VARTrainingConfig",
    "VQVAELossConfig",
    "VQVAETrainingConfig",
    "distill",
    "measure_agreement",
    "tokenize_set",
    "train_var",
    "train_vqvae",
]
