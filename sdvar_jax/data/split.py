"""Names of the splits, and the rule that assigns to them."""

from __future__ import annotations

import hashlib
from typing import Literal, get_args

import numpy as np

from sdvar_jax.errors import SdvarError

Split = Literal["train", "heldout", "all"]


def is_heldout(identity: str, fraction: float) -> bool:
    """Whether ``identity`` is held out: a fixed function of it, true for ``fraction`` of all.

    Args:
      identity: what must not be in both splits, such as a glyph.
      fraction: share to hold out, in ``[0, 1)``.
    """
    digest = hashlib.sha256(f"heldout:{identity}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


def split_rows(heldout: np.ndarray, split: Split) -> np.ndarray:
    """Row numbers, int64 ``[m]`` in ascending order, of a split.

    Args:
      heldout: bool ``[n]``.
      split: which rows: ``"train"``, ``"heldout"`` or ``"all"``.

    Raises:
      SdvarError: there is no such split.
    """
    if split not in get_args(Split):
        raise SdvarError(f"no split {split!r}; choose one of {', '.join(get_args(Split))}")
    if split == "all":
        return np.arange(len(heldout))
    return np.flatnonzero(heldout if split == "heldout" else ~heldout)
