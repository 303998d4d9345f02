"""Measuring samples: features, distances between sets of pictures, files for other tools."""

from sdvar_jax.evaluation.adm_npz import write_adm_npz
from sdvar_jax.evaluation.estimate import Estimate
from sdvar_jax.evaluation.features import (
    FeatureExtractor,
    FeatureNetwork,
    FeaturesConfig,
    load_features,
    save_features,
)
from sdvar_jax.evaluation.frechet import GaussianStatistics, frechet_distance, frechet_estimate
from sdvar_jax.evaluation.generate import GenerationPlan, balanced_labels, generate_samples
from sdvar_jax.evaluation.measure import FeatureSet, Quality, Reference
from sdvar_jax.evaluation.precision_recall import Manifold, measure_precision_recall
from sdvar_jax.evaluation.samples import SampleDirectory, Shard

__all__ = [
    "Estimate",
    "FeatureExtractor",
    "FeatureNetwork",
    "FeatureSet",
    "FeaturesConfig",
    "GaussianStatistics",
    "GenerationPlan",
    "Manifold",
    "Quality",
    "Reference",
    "SampleDirectory",
    "Shard",
    "balanced_labels",
    "frechet_distance",
    "frechet_estimate",
    "generate_samples",
    "load_features",
    "measure_precision_recall",
    "save_features",
    "write_adm_npz",
]
