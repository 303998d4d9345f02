"""Conversion between PyTorch VAR checkpoints and the Flax checkpoints of ``sdvar_jax``."""
