"""The VAR transformer."""

from sdvar_jax.models.var.cache import KVCache
from sdvar_jax.models.var.masks import block_causal_mask, scale_of_position
from sdvar_jax.models.var.transformer import VAR, Modulations

__all__ = ["VAR", "KVCache", "Modulations", "block_causal_mask", "scale_of_position"]
