"""How often each picture is drawn, so that no kind of picture drowns the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from sdvar_jax.config.validation import require

BALANCES = ("none", "glyph", "class")


def sampling_weights(
    labels: np.ndarray,
    glyphs: Sequence[str] | None,
    balance: str,
    class_power: float = 1.0,
) -> np.ndarray:
    """Weights of the pictures of a set.

    Args:
      labels: int [n].
      glyphs: what each picture shows, n entries; needed for "glyph".
      balance: "none" draws every picture alike; "glyph" draws every glyph of a class alike, so
        that one with thirty variants (skin tones, hair) counts as one; "class" draws every class
        alike, and the pictures of a class as "glyph" does where glyphs are known.
      class_power: for "class": 1 draws all classes alike, 0 leaves them as "glyph" has them,
        between lies in between.

    Returns:
      float64 [n], of mean 1.

    Raises:
      SdvarError: the balance is unknown, or the set knows no glyphs and "glyph" is asked for.
    """
    require(balance in BALANCES, f"unknown balance {balance!r}; use one of {', '.join(BALANCES)}")
    require(
        balance != "glyph" or glyphs is not None,
        "this data set does not say what its pictures show, so it cannot be balanced by glyph",
    )
    weights = np.ones(len(labels))
    if balance != "none" and glyphs is not None:
        kinds = list(zip(labels.tolist(), glyphs, strict=True))
        counts = Counter(kinds)
        weights = np.array([1.0 / counts[kind] for kind in kinds])
    if balance == "class":
        mass = np.bincount(labels, weights=weights)  # [classes]
        weights = weights / mass[labels] ** class_power
    return weights * len(weights) / weights.sum()
