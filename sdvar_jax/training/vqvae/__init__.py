"""Training the multi-scale VQVAE."""

from sdvar_jax.training.vqvae.config import RevivalConfig, VQVAELossConfig, VQVAETrainingConfig
from sdvar_jax.training.vqvae.train import TrainedVQVAE, train_vqvae

__all__ = [
    "RevivalConfig",
    "TrainedVQVAE",
    "VQVAELossConfig",
    "VQVAETrainingConfig",
    "train_vqvae",
]
