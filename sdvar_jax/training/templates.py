"""Models put together from weights inside compiled functions."""

from __future__ import annotations

from sdvar_jax.checkpoint.assembly import assemble
from sdvar_jax.config import DTypePolicy, VARConfig, VQVAEConfig
from sdvar_jax.models import VAR, VQVAE
from sdvar_jax.training.state import Params


def build_var(config: VARConfig, params: Params, dtypes: DTypePolicy) -> VAR:
    """The VAR with these weights."""
    model = assemble(config, params, dtypes)
    assert isinstance(model, VAR)
    return model


def build_vqvae(config: VQVAEConfig, params: Params, dtypes: DTypePolicy) -> VQVAE:
    """The VQVAE with these weights."""
    model = assemble(config, params, dtypes)
    assert isinstance(model, VQVAE)
    return model
