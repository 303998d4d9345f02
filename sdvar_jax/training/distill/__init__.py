"""Distilling a draft from a target."""

from sdvar_jax.training.distill.agreement import measure_agreement
from sdvar_jax.training.distill.config import DistillConfig
from sdvar_jax.training.distill.train import Distilled, distill

__all__ = ["DistillConfig", "Distilled", "distill", "measure_agreement"]
