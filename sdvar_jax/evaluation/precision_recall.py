"""Precision and recall by nearest neighbours (Kynkaanniemi et al. 2019, section 3).

A set of pictures stands for the union of balls in feature space, one around each picture, as far
as its k-th nearest neighbour in the set. Precision is the share of samples within the real
pictures' balls (are they like real ones?), recall the share of real pictures within the samples'
balls (are all kinds of real ones made?).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from sdvar_jax.config.validation import require
from sdvar_jax.evaluation.estimate import Estimate

NEIGHBOURS = 3
_CHUNK = 1024
_GROUPS = 20
# Distances of equal pictures come out as rounding noise of this share of the squared norms.
_SLACK = 1e-12


def _squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n, m] of float64 features [n, d] and [m, d]."""
    squares = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1)[None]
    return np.maximum(squares - 2 * first @ second.T, 0.0)


@dataclasses.dataclass(frozen=True)
class Manifold:
    """A set of pictures as balls in feature space.

    Attributes:
      features: centres, float64 [n, d].
      squared_radii: [n].
    """

    features: np.ndarray
    squared_radii: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, neighbours: int = NEIGHBOURS) -> Manifold:
        """Balls around features [n, d], each as far as its ``neighbours``-th nearest other one.

        Raises:
          SdvarError: there are not more pictures than neighbours.
        """
        x = np.asarray(features, np.float64)
        require(
            x.ndim == 2 and len(x) > neighbours >= 1,
            f"precision and recall need more than {neighbours} pictures in each set, got {len(x)}",
        )
        radii = np.empty(len(x))
        for start in range(0, len(x), _CHUNK):
            distances = _squared_distances(x[start : start + _CHUNK], x)
            own = np.arange(len(distances))
            distances[own, start + own] = np.inf
            radii[start : start + _CHUNK] = np.partition(distances, neighbours - 1, axis=1)[
                :, neighbours - 1
            ]
        return cls(x, radii)

    def covers(self, features: np.ndarray, groups: int = 1) -> np.ndarray:
        """Whether features lie in balls.

        Args:
          features: [m, d].
          groups: ball i belongs to group i % groups.

        Returns:
          bool [m, groups]: whether each lies in any ball of each group.
        """
        x = np.asarray(features, np.float64)
        slack = _SLACK * (1.0 + np.max(np.sum(self.features**2, axis=1)))
        inside = np.empty((len(x), groups), bool)
        for start in range(0, len(x), _CHUNK):
            distances = _squared_distances(x[start : start + _CHUNK], self.features)
            near = distances <= self.squared_radii[None] + slack
            for group in range(groups):
                inside[start : start + _CHUNK, group] = np.any(near[:, group::groups], axis=1)
        return inside


def measure_precision_recall(
    samples: Manifold, real: Manifold, real_weights: np.ndarray | None = None
) -> tuple[Estimate, Estimate]:
    """Precision and recall of samples, each in 0..1.

    The uncertainty of the recall is a jackknife's: the samples leave in turn, a group at a time,
    while the balls of the others stay as they are.

    Args:
      samples: what is judged.
      real: what it should be like.
      real_weights: what each real picture counts in the recall; None for all the same.
    """
    inside = real.covers(samples.features)[:, 0]
    precision = Estimate.share(float(np.mean(inside)), len(inside))
    groups = min(_GROUPS, len(samples.features))
    covered = samples.covers(real.features, groups)  # [real, groups]
    times = np.sum(covered, axis=1, keepdims=True)
    without = times - covered > 0  # covered by any other group
    left_out = np.average(without, axis=0, weights=real_weights)  # [groups]
    recall = float(np.average(times[:, 0] > 0, weights=real_weights))
    spread = np.sum((left_out - left_out.mean()) ** 2)
    deviation = float(np.sqrt((groups - 1) / groups * spread))
    return precision, Estimate.normal(recall, deviation, 1.0)
