"""Acceptance rules on logits made by hand: when a scale passes, and what replaces it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import decode, tiny_models, tiny_request
from scipy import stats

from sdvar_jax.decoding import Speculative, TargetOnly
from sdvar_jax.decoding.speculative import (
    KL,
    RULES,
    AcceptanceRule,
    Check,
    Exact,
    Match,
    Residual,
    TopK,
    acceptance_rule,
)
from sdvar_jax.errors import SdvarError

VOCAB = 5


def make_check(drafted, drawn, target_logits=None, draft_logits=None, **options):
    """A check of one sample; the bonus positions are those ``drawn`` has more than ``drafted``."""
    length = len(drawn)
    if target_logits is None:
        target_logits = np.zeros((length, VOCAB))
    target_logits = jnp.asarray(target_logits, jnp.float32)[None]
    if draft_logits is not None:
        draft_logits = jnp.asarray(draft_logits, jnp.float32)[None]
    return Check(
        draft_tokens=jnp.asarray([drafted], jnp.int32),
        target_logits=target_logits,
        target_filtered=target_logits,
        target_tokens=jnp.asarray([drawn], jnp.int32),
        draft_logits=draft_logits,
        draft_filtered=draft_logits,
        **options,
    )


def scores(rule, check):
    return np.asarray(rule.score(check)[0]).tolist()


def passes(rule, total, count, threshold):
    return bool(rule.passes(jnp.asarray([total], jnp.float32), count, jnp.float32(threshold))[0])


def test_exact_compares_with_the_targets_draw_and_wants_all():
    rule = Exact()
    assert scores(rule, make_check([1, 2, 3], [1, 0, 3, 4])) == [True, False, True]
    assert passes(rule, 3, 3, 1.0)
    assert not passes(rule, 2, 3, 1.0)
    # One token of a 1024-token scale is noticed in float32.
    assert not passes(rule, 1023, 1024, 1.0)


def test_match_is_the_share_of_agreeing_tokens():
    rule = Match()
    assert scores(rule, make_check([1, 2, 3, 4], [1, 0, 3, 0])) == [True, False, True, False]
    assert passes(rule, 2, 4, 0.5)
    assert not passes(rule, 1, 4, 0.5)
    assert rule.default_threshold == 0.5


def test_match_top1_compares_with_the_most_likely_token_as_published():
    logits = np.eye(VOCAB)[[1, 2, 3, 4]]
    check = make_check([1, 2, 0], [0, 0, 0, 0], logits)
    assert scores(Match(coupled=False), check) == [True, True, False]
    assert scores(Match(coupled=True), check) == [False, False, True]


@pytest.mark.parametrize(
    ("k", "wanted"), [(1, [True, False, False]), (2, [True, True, False]), (3, [True] * 3)]
)
def test_topk_takes_any_of_the_targets_k_most_likely(k, wanted):
    logits = np.tile([3.0, 2.0, 1.0, 0.0, -1.0], (3, 1))
    assert scores(TopK(k), make_check([0, 1, 2], [4, 4, 4], logits)) == wanted


def test_kl_is_the_divergence_in_nats():
    random = np.random.default_rng(0)
    target, draft = random.standard_normal((2, 3, VOCAB))
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (target, draft))
    check = make_check([0, 0, 0], [0, 0, 0], target, draft)
    np.testing.assert_allclose(scores(KL(), check), stats.entropy(p, q, axis=-1), rtol=1e-4)
    assert passes(KL(), 0.3, 3, 0.1)
    assert not passes(KL(), 0.31, 3, 0.1)


def test_kl_ignores_what_filters_drop():
    """Filtered logits hold -inf, which would make any divergence infinite or undefined."""
    check = make_check([0], [0], np.zeros((1, VOCAB)), np.zeros((1, VOCAB)))
    dropped = jnp.full((1, 1, VOCAB), -jnp.inf).at[..., 0].set(0.0)
    check = check.replace(target_filtered=dropped, draft_filtered=dropped)
    assert scores(KL(), check) == [0.0]


@pytest.mark.parametrize("rule", [Match(), Match(coupled=False), TopK(3)])
def test_dials_reach_from_accepting_all_to_asking_all(rule):
    assert passes(rule, 0, 9, 0.0)
    assert passes(rule, 9, 9, 1.0)
    assert not passes(rule, 8, 9, 1.0)


def test_the_dial_of_kl_reaches_from_nothing_to_everything():
    assert not passes(KL(), 1e-3, 9, 0.0)
    assert passes(KL(), 1e3, 9, np.inf)


def residual_check(p, q, samples):
    """``samples`` drafts from q with accept decisions and fresh noise, one position each."""
    keys = jax.random.split(jax.random.key(0), 3)
    shape = (samples, 1, VOCAB)
    drafted = jax.random.categorical(keys[0], jnp.log(jnp.asarray(q)), shape=(samples, 1))
    logits = [jnp.broadcast_to(jnp.log(jnp.asarray(each, jnp.float32)), shape) for each in (p, q)]
    return Check(
        draft_tokens=drafted.astype(jnp.int32),
        target_logits=logits[0],
        target_filtered=logits[0],
        target_tokens=jnp.zeros((samples, 1), jnp.int32),
        draft_logits=logits[1],
        draft_filtered=logits[1],
        uniform=jax.random.uniform(keys[1], (samples, 1)),
        fresh_noise=jax.random.gumbel(keys[2], shape),
    )


P = np.array([0.4, 0.3, 0.2, 0.1, 0.0])
Q = np.array([0.1, 0.1, 0.3, 0.3, 0.2])


def test_residual_accepts_with_the_smaller_of_1_and_p_over_q():
    check = residual_check(P, Q, 20_000)
    accepted, drafted = np.asarray(Residual().score(check)[:, 0]), np.asarray(check.draft_tokens)
    for token in range(VOCAB):
        share = accepted[drafted[:, 0] == token].mean()
        assert share == pytest.approx(min(1.0, P[token] / Q[token]), abs=0.02)
    assert accepted.mean() == pytest.approx(np.minimum(P, Q).sum(), abs=0.02)


def test_residual_keeps_what_it_accepts_and_draws_the_rest_where_p_exceeds_q():
    check = residual_check(P, Q, 20_000)
    accepted, tokens = Residual().score(check), Residual().tokens(check)
    np.testing.assert_array_equal(tokens[accepted], check.draft_tokens[accepted])
    counts = np.bincount(np.asarray(tokens[~accepted]), minlength=VOCAB)
    rest = np.maximum(P - Q, 0) / np.maximum(P - Q, 0).sum()
    assert counts[rest == 0].sum() == 0
    assert stats.chisquare(counts[rest > 0], rest[rest > 0] * counts.sum()).pvalue > 0.01


def test_residual_tokens_follow_p():
    counts = np.bincount(np.asarray(Residual().tokens(residual_check(P, Q, 20_000))[:, 0]))
    assert len(counts) == 4, "a token of probability 0 was drawn"
    assert stats.chisquare(counts, P[:4] / P[:4].sum() * counts.sum()).pvalue > 0.01


def test_residual_of_equal_distributions_accepts_all_and_stays_finite():
    check = residual_check(Q, Q, 100)
    assert Residual().score(check).all()
    np.testing.assert_array_equal(Residual().tokens(check), check.draft_tokens)


def test_positions_behind_the_drafted_keep_the_targets_draw():
    check = make_check(
        [0],
        [3, 4, 2],
        draft_logits=np.zeros((1, VOCAB)),
        uniform=jnp.zeros((1, 1)),
        fresh_noise=jnp.zeros((1, 1, VOCAB)),
    )
    assert Residual().tokens(check)[0].tolist() == [0, 4, 2]


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (Exact(), 0.9),
        (Residual(), 0.0),
        (Match(), 1.01),
        (Match(), -0.1),
        (TopK(), 2.0),
        (KL(), -1.0),
        (KL(), float("nan")),
    ],
)
def test_a_threshold_outside_its_range_is_refused(rule, value):
    with pytest.raises(SdvarError, match=f"threshold of {rule.name!r}.*must lie in"):
        rule.check_threshold(value)


@pytest.mark.parametrize("rule", [make() for make in RULES.values()])
def test_the_default_threshold_lies_in_its_range(rule):
    assert rule.check_threshold(None) == rule.default_threshold


def test_rules_have_names():
    assert isinstance(acceptance_rule("topk", k=4), TopK)
    with pytest.raises(SdvarError, match="unknown acceptance rule 'hope'; use one of exact,"):
        acceptance_rule("hope")
    with pytest.raises(SdvarError, match="accept_top_k must be at least 1"):
        acceptance_rule("topk", k=0)


@dataclasses.dataclass(frozen=True)
class Likely(AcceptanceRule):
    """A user's rule: the target gives the drafted token a probability of at least ``least``."""

    least: float = 0.1
    name = "likely"

    def score(self, check):
        p = jax.nn.softmax(check.target_logits[:, : check.drafted], axis=-1)
        token = jnp.take_along_axis(p, check.draft_tokens[..., None], axis=-1)
        return token[..., 0] >= self.least


def test_a_rule_of_the_users_own(monkeypatch):
    monkeypatch.setitem(RULES, "likely", Likely)
    decoder = Speculative(gamma=2, accept=acceptance_rule("likely", least=2.0))
    models = tiny_models(1.0)
    lax, strict = (
        decode(decoder, models, tiny_request((0, 1, 2), 3, threshold=threshold))
        for threshold in (0.0, 1.0)
    )
    assert lax.counters.rejected.sum() == 0
    assert strict.counters.accepted.sum() == 0
    alone = decode(TargetOnly(), models, tiny_request((0, 1, 2), 3))
    np.testing.assert_array_equal(strict.tokens, alone.tokens)
