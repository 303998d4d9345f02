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

NEIGHBOURS = 3
_CHUNK = 1024
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

    def contains(self, features: np.ndarray) -> np.ndarray:
        """Whether each of the features [m, d] lies in any ball, bool [m]."""
        x = np.asarray(features, np.float64)
        slack = _SLACK * (1.0 + np.max(np.sum(self.features**2, axis=1)))
        inside = np.empty(len(x), bool)
        for start in range(0, len(x), _CHUNK):
            distances = _squared_distances(x[start : start + _CHUNK], self.features)
            inside[start : start + _CHUNK] = np.any(
                distances <= self.squared_radii[None] + slack, axis=1
            )
        return inside


def precision_recall(
    samples: Manifold, real: Manifold, real_weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Precision and recall of samples, each in 0..1.

    Args:
      samples: what is judged.
      real: what it should be like.
      real_weights: what each real picture counts in the recall; None for all the same.
    """
    precision = float(np.mean(real.contains(samples.features)))
    recall = float(np.average(samples.contains(real.features), weights=real_weights))
    return precision, recall
