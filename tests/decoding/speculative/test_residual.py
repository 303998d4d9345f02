"""The rule residual samples from the target's own distribution, whatever the draft.

On models with two tokens the distribution is enumerated: by teacher forcing, apart from all the
decoders' code.
"""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import FREE_TURNS, decode, tiny_models, tiny_request
from scipy import stats

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding import Speculative, TargetOnly
from sdvar_jax.decoding.speculative import Residual
from sdvar_jax.decoding.speculative.alone import OnTrial
from sdvar_jax.sampling import filter_logits

PYRAMID = ScalePyramid((1, 2, 3))
VOCAB = 2
# The first two scales and two tokens of the third.
SEEN = 7
BATCH = 1000
ALMOST_CERTAIN = 1e-9
# Guidance and a filter that cuts now and then; draft and target disagree much of the time.
CFG, TOP_P = 1.5, 0.97


@functools.cache
def models():
    return tiny_models(0.25, pyramid=PYRAMID, vocab=VOCAB, confidence=0.25)


def request(labels, seed, **options):
    return tiny_request(labels, seed, pyramid=PYRAMID, cfg=CFG, top_k=0, top_p=TOP_P, **options)


def true_distribution(model, label=0):
    """Probability of each beginning of SEEN tokens, first token most significant [2**SEEN]."""
    parts = models().merged()
    first, second = PYRAMID.offsets[1:3]
    prefixes = np.array(list(itertools.product(range(VOCAB), repeat=second)), np.int32)
    count = len(prefixes)
    filler = np.zeros((count, PYRAMID.lengths[2]), np.int32)
    maps = (prefixes[:, :first], prefixes[:, first:], filler)
    inputs = parts.quantizer.teacher_forcing_inputs(parts.quantizer.f_hats(maps))
    conditional, unconditional = (
        np.asarray(model.teacher_forced(jnp.full((count,), each), inputs))
        for each in (label, model.config.unconditional_label)
    )
    strength = CFG * np.repeat(np.arange(3), PYRAMID.lengths)[None, :, None] / 2
    logits = (1 + strength) * conditional - strength * unconditional
    kept = filter_logits(jnp.asarray(logits, jnp.float32), 0, TOP_P)
    p = np.asarray(jax.nn.softmax(kept, axis=-1), np.float64)  # [prefixes, total_length, vocab]
    outcomes = np.array(list(itertools.product(range(VOCAB), repeat=SEEN)))
    row = np.repeat(np.arange(count), VOCAB ** (SEEN - second))
    return np.prod([p[row, i, outcomes[:, i]] for i in range(SEEN)], axis=0)


def outcome(tokens):
    """Number of each sample's outcome in the order of ``true_distribution``."""
    return tokens[:, :SEEN] @ (VOCAB ** np.arange(SEEN)[::-1])


@functools.cache
def sampled(decoder, samples, batch=BATCH, seed=0):
    """Outcomes [samples] and the counters of all batches."""
    runs = [
        decode(decoder, models(), request((0,) * batch, seed + run))
        for run in range(samples // batch)
    ]
    return np.concatenate([outcome(each.tokens) for each in runs]), [r.counters for r in runs]


def p_value(outcomes, expected):
    """Chi-square of outcomes against their probabilities; rare ones share a cell."""
    counts = np.bincount(outcomes, minlength=expected.size)
    expected = expected * (len(outcomes) / expected.sum())
    rare = expected < 10
    if counts[expected == 0].any():
        return 0.0
    pooled = [np.append(each[~rare], each[rare].sum()) for each in (counts, expected)]
    filled = pooled[1] > 0
    return stats.chisquare(pooled[0][filled], pooled[1][filled]).pvalue


def total_variation(outcomes, expected):
    shares = np.bincount(outcomes, minlength=expected.size) / len(outcomes)
    return 0.5 * np.abs(shares - expected).sum()


def target_distribution():
    return true_distribution(models().merged().target)


def draft_distribution():
    return true_distribution(models().merged().draft)


DECODERS = {
    "bonus": Speculative(gamma=2, accept=Residual()),
    "no bonus": Speculative(gamma=2, accept=Residual(), bonus=False),
    "one scale a window": Speculative(gamma=1, accept=Residual(), bonus=False),
    "adaptive": Speculative(
        gamma="adaptive",
        adaptive_gammas=(0, 1, 2),
        adaptive_overhead=1.0,
        accept=Residual(),
        cost=FREE_TURNS,
    ),
    "on trial": OnTrial(Residual(), scales=2),
}


def test_the_enumerated_distribution_is_that_of_the_target_alone():
    outcomes, _ = sampled(TargetOnly(), 10_000)
    assert p_value(outcomes, target_distribution()) > 0.01
    assert p_value(outcomes, draft_distribution()) < ALMOST_CERTAIN
    assert target_distribution().sum() == pytest.approx(1)


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_samples_follow_the_target(decoder):
    # As many as the test of convergence draws, where it draws from this decoder.
    samples = 100_000 if decoder == DECODERS["bonus"] else 10_000
    outcomes, counters = sampled(decoder, samples)
    assert p_value(outcomes, target_distribution()) > 0.01
    accepted = sum(c.accepted for c in counters)
    rejected = sum(c.rejected for c in counters)
    # Each of the drafted scales was both accepted and rejected, often.
    drafted = accepted + rejected > 0
    assert min(accepted[drafted].min(), rejected[drafted].min()) > 100


def test_samples_follow_the_target_where_a_batch_goes_back_to_its_slowest():
    decoder = dataclasses.replace(DECODERS["bonus"], progress="minimum")
    outcomes, _ = sampled(decoder, 6_000, batch=4)
    assert p_value(outcomes, target_distribution()) > 0.01


class DrawsFromTheTarget(Residual):
    """Broken: a rejected token is drawn from p in place of the residual."""

    def tokens(self, check):
        drafted = slice(0, check.drafted)
        drawn = jnp.argmax(check.target_filtered[:, drafted] + check.fresh_noise, axis=-1)
        corrected = jnp.where(self.score(check), check.draft_tokens, drawn)
        return jnp.concatenate([corrected, check.target_tokens[:, check.drafted :]], axis=1)


class AcceptsEverything(Residual):
    """Broken: every drafted token passes."""

    def score(self, check):
        return jnp.ones(check.draft_tokens.shape, bool)


class AcceptsByTheTargetAlone(Residual):
    """Broken: accepts with p in place of p / q."""

    def score(self, check):
        p, _ = self._probabilities(check)
        token = jnp.take_along_axis(p, check.draft_tokens[..., None], axis=-1)[..., 0]
        return check.uniform < token


@pytest.mark.parametrize("rule", [DrawsFromTheTarget, AcceptsEverything, AcceptsByTheTargetAlone])
def test_the_test_notices_a_broken_rule(rule):
    outcomes, _ = sampled(Speculative(gamma=2, accept=rule()), 10_000)
    assert p_value(outcomes, target_distribution()) < ALMOST_CERTAIN


def test_the_distance_shrinks_towards_the_target_and_no_other_distribution():
    outcomes, _ = sampled(DECODERS["bonus"], 100_000)

    def shrinks(expected):
        return total_variation(outcomes[:10], expected) / total_variation(outcomes, expected)

    to_target, to_draft = shrinks(target_distribution()), shrinks(draft_distribution())
    assert to_target >= 20 * to_draft, f"{to_target:.1f} times and {to_draft:.1f} times"


def test_a_token_the_filter_drops_is_never_drawn():
    decoder = DECODERS["bonus"]
    # The one most likely token of each position is all that top-k 1 leaves.
    greedy = tiny_request((0,) * 50, 3, pyramid=PYRAMID, top_k=1, top_p=0.0)
    made = decode(decoder, models(), greedy)
    np.testing.assert_array_equal(made.tokens, decode(TargetOnly(), models(), greedy).tokens)
    assert np.all(made.tokens == made.tokens[:1])


def test_a_draft_that_is_the_target_is_always_accepted():
    same = tiny_models(0.0, pyramid=PYRAMID, vocab=VOCAB, confidence=0.25)
    made = decode(DECODERS["bonus"], same, request((0,) * BATCH, 0))
    assert made.counters.rejected.sum() <= 0.001 * made.counters.accepted.sum()
