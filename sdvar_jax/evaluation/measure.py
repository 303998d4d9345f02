"""Quality of samples against real pictures and against other samples, in emoji features."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from sdvar_jax.config.validation import require
from sdvar_jax.evaluation.estimate import Estimate
from sdvar_jax.evaluation.frechet import GaussianStatistics, frechet_estimate
from sdvar_jax.evaluation.precision_recall import Manifold, measure_precision_recall


@dataclasses.dataclass(frozen=True)
class FeatureSet:
    """Features of a set of pictures with classes.

    Attributes:
      features: float [n, d].
      labels: int [n].
      predicted: the classifier's classes [n], or None.
    """

    features: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> Estimate | None:
        """Share of the pictures in which the classifier sees their class."""
        if self.predicted is None:
            return None
        return Estimate.share(float(np.mean(self.predicted == self.labels)), len(self))


def class_weights(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Weights [n] under which each class counts as much as it does among the labels ``like``.

    Args:
      labels: classes of the pictures to be weighed.
      like: classes of the other set.

    Raises:
      SdvarError: a class of ``like`` is missing among ``labels``.
    """
    classes = int(max(labels.max(), like.max())) + 1
    have = np.bincount(labels, minlength=classes)
    wanted = np.bincount(like, minlength=classes)
    missing = np.flatnonzero((wanted > 0) & (have == 0))
    require(
        missing.size == 0,
        f"there are samples of classes {missing.tolist()} and no real pictures to compare with",
    )
    return (wanted / np.maximum(have, 1))[labels] / len(like)


@dataclasses.dataclass(frozen=True)
class Quality:
    """What was measured of a set of samples.

    Attributes:
      samples: number of pictures.
      frechet: Frechet distance to the real pictures.
      precision: share of samples that are like real pictures, or None.
      recall: share of real pictures that samples are like, or None.
      accuracy: share of samples in which the classifier sees the class asked for, or None.
    """

    samples: int
    frechet: Estimate
    precision: Estimate | None
    recall: Estimate | None
    accuracy: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


class Reference:
    """Pictures that samples are compared with.

    Every class counts as much as it does among the samples, so that class-balanced samples may be
    compared with a set that is not.

    Attributes:
      pictures: their features.
    """

    def __init__(self, pictures: FeatureSet) -> None:
        self.pictures = pictures
        self._manifold: Manifold | None = None

    @property
    def manifold(self) -> Manifold:
        """Its balls; computed once."""
        if self._manifold is None:
            self._manifold = Manifold.of(self.pictures.features)
        return self._manifold

    def statistics(self, labels: np.ndarray) -> GaussianStatistics:
        """Mean and covariance with the class shares of ``labels``."""
        weights = class_weights(self.pictures.labels, np.asarray(labels))
        return GaussianStatistics.of(self.pictures.features, weights)

    def frechet(self, samples: FeatureSet, *, resamples: int = 100, seed: int = 0) -> Estimate:
        """Frechet distance of samples to it."""
        return frechet_estimate(
            samples.features,
            self.statistics(samples.labels),
            labels=samples.labels,
            resamples=resamples,
            seed=seed,
        )

    def quality(
        self, samples: FeatureSet, *, neighbours: bool = True, resamples: int = 100, seed: int = 0
    ) -> Quality:
        """Everything about a set of samples.

        Args:
          samples: what is judged.
          neighbours: whether precision and recall are wanted.
          resamples: of the bootstrap.
          seed: of the bootstrap.
        """
        precision = recall = None
        if neighbours:
            precision, recall = measure_precision_recall(
                Manifold.of(samples.features),
                self.manifold,
                class_weights(self.pictures.labels, samples.labels),
            )
        return Quality(
            samples=len(samples),
            frechet=self.frechet(samples, resamples=resamples, seed=seed),
            precision=precision,
            recall=recall,
            accuracy=samples.accuracy,
        )
