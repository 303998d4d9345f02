"""Frechet distance between two sets of pictures, from features, with a confidence interval.

Each set is taken for a normal distribution of features; the squared 2-Wasserstein distance of the
two is |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Heusel et al. 2017, section 4, for Inception
features). The distance of finite sets is biased upwards, more so for fewer pictures: compare
figures of equally many pictures only, and beside the distance of two sets of the same source.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sdvar_jax.config.validation import require
from sdvar_jax.evaluation.estimate import Estimate


@dataclasses.dataclass(frozen=True)
class GaussianStatistics:
    """Mean and covariance of a set of features.

    Attributes:
      mean: float64 [features].
      covariance: unbiased, float64 [features, features].
      count: number of pictures.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @classmethod
    def of(cls, features: np.ndarray, weights: np.ndarray | None = None) -> GaussianStatistics:
        """Statistics of features [n, features].

        Args:
          features: one row a picture.
          weights: what each picture counts [n], of any sum; None for all the same.

        Raises:
          SdvarError: there are fewer than two pictures that count.
        """
        x = np.asarray(features, np.float64)
        n = len(x)
        w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
        require(
            x.ndim == 2 and w.shape == (n,) and int(np.count_nonzero(w)) >= 2,
            f"a distribution needs two or more feature vectors, got {x.shape}",
        )
        w = w / w.sum()
        mean = w @ x
        centred = x - mean
        covariance = (centred * w[:, None]).T @ centred / (1.0 - np.sum(w**2))
        return cls(mean, covariance, n)


def _square_root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(matrix)
    # Rounding makes zeros slightly negative.
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def frechet_distance(
    first: GaussianStatistics,
    second: GaussianStatistics,
    *,
    second_root: np.ndarray | None = None,
) -> float:
    """Squared Frechet distance of two normal distributions; never negative.

    tr((C1 C2)^(1/2)) is the sum of the square roots of the eigenvalues of the symmetric
    C2^(1/2) C1 C2^(1/2), so that no square root of an unsymmetric matrix is needed.

    Args:
      first: one distribution.
      second: the other.
      second_root: symmetric square root of the second covariance where it is known already.
    """
    require(
        first.mean.shape == second.mean.shape,
        f"features of {first.mean.size} and {second.mean.size} numbers cannot be compared",
    )
    root = _square_root(second.covariance) if second_root is None else second_root
    product = root @ first.covariance @ root
    values = np.linalg.eigvalsh((product + product.T) / 2)
    overlap = np.sum(np.sqrt(np.maximum(values, 0.0)))
    apart = np.sum((first.mean - second.mean) ** 2)
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2 * overlap
    return max(float(apart + spread), 0.0)


def resampled_counts(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How often each picture is drawn when each class is resampled with replacement, [n]."""
    counts = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counts[rows] = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)))
    return counts


def frechet_estimate(
    features: np.ndarray,
    reference: GaussianStatistics,
    *,
    labels: np.ndarray | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> Estimate:
    """Frechet distance of features to a reference, with a bootstrap interval.

    The interval is that of the samples' randomness: its width is the bootstrap's, its centre the
    distance itself, since resampled sets are biased further upwards. The reference stays fixed.

    Args:
      features: of the samples [n, features].
      reference: what they are compared with.
      labels: classes [n]; each class is resampled by itself, as it was sampled.
      resamples: of the bootstrap.
      seed: of the bootstrap.
    """
    root = _square_root(reference.covariance)
    value = frechet_distance(GaussianStatistics.of(features), reference, second_root=root)
    labels = np.zeros(len(features), np.int32) if labels is None else np.asarray(labels)
    random = np.random.default_rng(seed)
    values = [
        frechet_distance(
            GaussianStatistics.of(features, resampled_counts(labels, random)),
            reference,
            second_root=root,
        )
        for _ in range(resamples)
    ]
    return Estimate.normal(value, float(np.std(values, ddof=1)) if resamples > 1 else 0.0)
