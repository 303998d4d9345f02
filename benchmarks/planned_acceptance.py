"""Acceptance by construction, for models with random weights.

Two random models never agree, so the agreement is planned: the draft proposes and the target
checks as ever, but whether a drafted scale passes is decided by a coin fixed by (seed, sample,
position). The arithmetic, and so the time, is that of the exact rule.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri

from sdvar_jax.decoding.speculative import AcceptanceRule
from sdvar_jax.decoding.speculative.acceptance import Check

# Keeps the quantile of a uniform number finite.
_MARGIN = 1e-6


@dataclasses.dataclass(frozen=True)
class PlannedAcceptance(AcceptanceRule):
    """Each drafted scale passes with probability ``threshold``, whatever its tokens.

    Every token scores the normal quantile of its own uniform number. The sum over a scale of n
    tokens divided by sqrt(n) is then a standard normal number, whose place in the distribution is
    the scale's uniform number. The threshold is traced: one program serves the whole curve. Use it
    with ``commit="draft"``: an accepted scale then holds what the draft knows, as it does where
    draft and target agree.
    """

    name = "planned"
    needs_randomness = True
    threshold_meaning = "probability that a drafted scale passes"

    def score(self, check: Check) -> jax.Array:
        """Standard normal numbers, float32 [batch, drafted]."""
        return ndtri(jnp.clip(check.uniform, _MARGIN, 1.0 - _MARGIN))

    def passes(self, total: jax.Array, count: int, threshold: jax.Array) -> jax.Array:
        """Whether the scale's uniform number lies below the threshold, bool [batch]."""
        place = ndtr(total / count**0.5)
        # At 1 everything passes and at 0 nothing, rounding or not.
        return (place < threshold) | (threshold >= 1.0)
