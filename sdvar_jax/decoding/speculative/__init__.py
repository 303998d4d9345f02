"""Speculative decoding at the level of scales."""

from sdvar_jax.decoding.speculative.acceptance import (
    KL,
    RULES,
    AcceptanceRule,
    Check,
    Exact,
    Match,
    Residual,
    TopK,
    acceptance_rule,
)
from sdvar_jax.decoding.speculative.cost_model import CostModel, ForwardCost, best_gammas
from sdvar_jax.decoding.speculative.decoder import Speculative
from sdvar_jax.decoding.speculative.state import MAKER_NAMES, Counters, Trace

__all__ = [
    "KL",
    "MAKER_NAMES",
    "RULES",
    "AcceptanceRule",
    "Check",
    "CostModel",
    "Counters",
    "Exact",
    "ForwardCost",
    "Match",
    "Residual",
    "Speculative",
    "TopK",
    "Trace",
    "acceptance_rule",
    "best_gammas",
]
