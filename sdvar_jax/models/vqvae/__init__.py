"""The multi-scale VQVAE."""

from sdvar_jax.models.vqvae.quantizer import Quantizer
from sdvar_jax.models.vqvae.vqvae import VQVAE

__all__ = ["VQVAE", "Quantizer"]
