"""Acceptance rules: when does a drafted scale pass, and which tokens does the target give.

A rule scores every drafted token and says how many points a scale needs. To add one, subclass
``AcceptanceRule``, implement ``score`` and register it in ``RULES``.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from sdvar_jax.config.validation import require
from sdvar_jax.errors import SdvarError

# Shares are compared as token counts; this slack is far below one token and above rounding.
_COUNT_SLACK = 1e-3


class Check(struct.PyTreeNode):
    """What the target saw of one window.

    The first ``drafted`` positions hold drafted scales; a bonus scale may follow them.

    Attributes:
      draft_tokens: int32 [batch, drafted].
      target_logits: guided, unfiltered, float32 [batch, length, vocab].
      target_filtered: after top-k and top-p, float32 [batch, length, vocab].
      target_tokens: the target's own draw under the shared noise, int32 [batch, length].
      draft_logits: guided, unfiltered, float32 [batch, drafted, vocab], or None if not asked for.
      draft_filtered: after top-k and top-p, likewise.
      uniform: uniform numbers [batch, drafted] for accept decisions, or None if not asked for.
      fresh_noise: Gumbel noise [batch, drafted, vocab] the draft has not seen, likewise.
    """

    draft_tokens: jax.Array
    target_logits: jax.Array
    target_filtered: jax.Array
    target_tokens: jax.Array
    draft_logits: jax.Array | None = None
    draft_filtered: jax.Array | None = None
    uniform: jax.Array | None = None
    fresh_noise: jax.Array | None = None

    @property
    def drafted(self) -> int:
        """Positions that hold drafted tokens."""
        return self.draft_tokens.shape[1]


@dataclasses.dataclass(frozen=True)
class AcceptanceRule(abc.ABC):
    """One way of judging drafted scales.

    Attributes:
      name: its name on the command line.
      lossless: the result follows the target's own distribution, whatever the draft.
      needs_draft_logits: keep the draft's logits until the check.
      needs_randomness: draw accept decisions and fresh noise for the check.
      default_threshold: the dial's value if the user gives none.
      threshold_range: values the dial may take.
      threshold_meaning: the dial in words.
    """

    name: ClassVar[str]
    lossless: ClassVar[bool] = False
    needs_draft_logits: ClassVar[bool] = False
    needs_randomness: ClassVar[bool] = False
    default_threshold: ClassVar[float] = 1.0
    threshold_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    threshold_meaning: ClassVar[str] = "share of tokens that must pass"

    @abc.abstractmethod
    def score(self, check: Check) -> jax.Array:
        """Points of every drafted token, [batch, drafted]; 1 or True where it passes."""

    def tokens(self, check: Check) -> jax.Array:
        """Tokens the target commits instead, int32 [batch, length]; its own draw by default."""
        return check.target_tokens

    def passes(self, total: jax.Array, count: int, threshold: jax.Array) -> jax.Array:
        """Whether a scale passes, bool [batch], from its points' sum and its token count."""
        return total >= threshold * count - _COUNT_SLACK

    def check_threshold(self, threshold: float | None) -> float:
        """The dial's value, or the default; ``SdvarError`` outside its range."""
        value = self.default_threshold if threshold is None else float(threshold)
        low, high = self.threshold_range
        require(
            low <= value <= high,
            f"the threshold of {self.name!r} ({self.threshold_meaning}) must lie in "
            f"{low:g}..{high:g}, got {value:g}",
        )
        return value


@dataclasses.dataclass(frozen=True)
class Exact(AcceptanceRule):
    """The target's own image, whatever the draft.

    Draft and target draw with the same Gumbel noise; a scale passes when all its tokens are the
    target's draw.
    """

    name = "exact"
    lossless = True
    threshold_range = (1.0, 1.0)
    threshold_meaning = "every token must agree"

    def score(self, check: Check) -> jax.Array:
        """Whether the target draws the same token."""
        return check.draft_tokens == check.target_tokens[:, : check.drafted]


@dataclasses.dataclass(frozen=True)
class Residual(AcceptanceRule):
    """Exact in distribution: accept with min(1, p/q), else draw from the residual max(0, p - q).

    Rejection sampling of speculative decoding (Leviathan et al. 2023, algorithm 1), token by
    token. The tokens of a scale are independent given the scales before it, so correcting the
    rejected ones makes the scale a sample of the target; only later scales must be drafted anew.
    """

    name = "residual"
    lossless = True
    needs_draft_logits = True
    needs_randomness = True
    threshold_range = (1.0, 1.0)
    threshold_meaning = "every token must be accepted"

    def _probabilities(self, check: Check) -> tuple[jax.Array, jax.Array]:
        """The target's p and the draft's q, float32 [batch, drafted, vocab]."""
        assert check.draft_filtered is not None
        p = jax.nn.softmax(check.target_filtered[:, : check.drafted], axis=-1)
        return p, jax.nn.softmax(check.draft_filtered, axis=-1)

    def score(self, check: Check) -> jax.Array:
        """Whether u < p(token) / q(token)."""
        assert check.uniform is not None
        p, q = self._probabilities(check)
        index = check.draft_tokens[..., None]
        p_token = jnp.take_along_axis(p, index, axis=-1)[..., 0]
        q_token = jnp.take_along_axis(q, index, axis=-1)[..., 0]
        return check.uniform * q_token < p_token

    def tokens(self, check: Check) -> jax.Array:
        """Accepted tokens, draws from the residual for the rejected, the target's draw behind."""
        assert check.fresh_noise is not None
        p, q = self._probabilities(check)
        rest = jnp.maximum(p - q, 0.0)
        # Rounding can leave nothing where p and q are equal; p itself is then right.
        rest = jnp.where(jnp.sum(rest, axis=-1, keepdims=True) > 0, rest, p)
        drawn = jnp.argmax(jnp.log(rest) + check.fresh_noise, axis=-1).astype(jnp.int32)
        corrected = jnp.where(self.score(check), check.draft_tokens, drawn)
        return jnp.concatenate([corrected, check.target_tokens[:, check.drafted :]], axis=1)


@dataclasses.dataclass(frozen=True)
class Match(AcceptanceRule):
    """Share of tokens that agree with the target, at or above the threshold.

    Attributes:
      coupled: compare with the target's draw under the shared noise; otherwise with its most
        likely token, as published.
    """

    coupled: bool = True

    name = "match"
    default_threshold = 0.5
    threshold_meaning = "share of tokens that must agree"

    def score(self, check: Check) -> jax.Array:
        """Whether the drafted token is the target's."""
        wanted = (
            check.target_tokens
            if self.coupled
            else jnp.argmax(check.target_logits, axis=-1).astype(jnp.int32)
        )
        return check.draft_tokens == wanted[:, : check.drafted]


@dataclasses.dataclass(frozen=True)
class TopK(AcceptanceRule):
    """Share of tokens within the target's ``k`` most likely ones, at or above the threshold."""

    k: int = 10

    name = "topk"
    threshold_meaning = "share of tokens that must be among the target's top k"

    def __post_init__(self) -> None:
        require(self.k >= 1, f"accept_top_k must be at least 1, got {self.k}")

    def score(self, check: Check) -> jax.Array:
        """Whether fewer than k tokens are more likely to the target."""
        logits = check.target_logits[:, : check.drafted]
        own = jnp.take_along_axis(logits, jnp.maximum(check.draft_tokens, 0)[..., None], axis=-1)
        return (jnp.sum(logits > own, axis=-1) < self.k) & (check.draft_tokens >= 0)


@dataclasses.dataclass(frozen=True)
class KL(AcceptanceRule):
    """Mean divergence KL(target || draft) a token, in nats, at or below the threshold."""

    name = "kl"
    needs_draft_logits = True
    default_threshold = 0.1
    threshold_range = (0.0, float("inf"))
    threshold_meaning = "mean KL(target || draft) a token in nats"

    def score(self, check: Check) -> jax.Array:
        """The divergence itself, in nats."""
        assert check.draft_logits is not None
        log_p = jax.nn.log_softmax(check.target_logits[:, : check.drafted], axis=-1)
        log_q = jax.nn.log_softmax(check.draft_logits, axis=-1)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)

    def passes(self, total: jax.Array, count: int, threshold: jax.Array) -> jax.Array:
        """Whether the mean divergence stays under the bound."""
        return total <= threshold * count


RULES: dict[str, type[AcceptanceRule]] = {
    rule.name: rule for rule in (Exact, Residual, Match, TopK, KL)
}


def acceptance_rule(name: str, **options: int | bool) -> AcceptanceRule:
    """The rule of that name: exact, residual, match, topk or kl, or one registered by the user."""
    if name not in RULES:
        raise SdvarError(f"unknown acceptance rule {name!r}; use one of {', '.join(RULES)}")
    return RULES[name](**options)
