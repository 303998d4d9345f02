"""Training the VAR transformer."""

from sdvar_jax.training.var.config import TokenNoiseConfig, VARTrainingConfig
from sdvar_jax.training.var.tokens import TokenSet, tokenize_set
from sdvar_jax.training.var.train import TrainedVAR, train_var

__all__ = [
    "TokenNoiseConfig",
    "TokenSet",
    "TrainedVAR",
    "VARTrainingConfig",
    "tokenize_set",
    "train_var",
]
