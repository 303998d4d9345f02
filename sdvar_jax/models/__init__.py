"""The models: VQVAE and VAR transformer. They know nothing of decoding or training."""

from sdvar_jax.models.var import VAR, KVCache, Modulations, block_causal_mask
from sdvar_jax.models.vqvae import VQVAE, Quantizer

__all__ = ["VAR", "VQVAE", "KVCache", "Modulations", "Quantizer", "block_causal_mask"]
