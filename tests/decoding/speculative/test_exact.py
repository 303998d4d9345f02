"""Under the rule exact the tokens are those of the target alone, whatever the draft."""

import functools

import numpy as np
import pytest
from decoding_models import (
    FREE_TURNS,
    PYRAMID,
    decode,
    tiny_models,
    tiny_request,
    var_config,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding import ForcedTokens, Handoff, Speculative, TargetOnly, TokenSampling
from sdvar_jax.decoding.speculative import Exact
from sdvar_jax.decoding.speculative.alone import OnTrial
from sdvar_jax.decoding.speculative.cost_model import FIRST_CHOICE
from sdvar_jax.sampling import SamplingConfig

SCALES = PYRAMID.num_scales
DISTANCES = {"the target itself": 0.0, "very close": 0.03, "close": 0.1, "random": 1.0}


@functools.cache
def drafts():
    """The same target with drafts that agree with it more and less."""
    return {name: tiny_models(distance) for name, distance in DISTANCES.items()}


def requests(labels, seeds=range(12), **options):
    """Requests that differ in seed, labels, guidance, top-k and top-p."""
    random = np.random.default_rng(7)
    return [
        tiny_request(
            random.integers(0, 5, labels),
            seed,
            cfg=random.choice([0.0, 1.5, 4.0]),
            top_k=int(random.choice([0, 1, 3, 6])),
            top_p=random.choice([0.0, 0.5, 0.9]),
            **options,
        )
        for seed in seeds
    ]


def assert_exact(decoder, requests, sampling=None, models=None):
    """Every run equals the target's; returns scales accepted and rejected, by draft."""
    models = models or drafts()
    seen = {name: np.zeros(2, int) for name in models}
    for request in requests:
        wanted = decode(TargetOnly(), next(iter(models.values())), request, sampling)
        for name, each in models.items():
            made = decode(decoder, each, request, sampling)
            np.testing.assert_array_equal(made.tokens, wanted.tokens)
            np.testing.assert_allclose(made.f_hats, wanted.f_hats, atol=1e-5)
            seen[name] += [made.counters.accepted.sum(), made.counters.rejected.sum()]
    return seen


def assert_mixed(seen):
    """Something was accepted and something rejected: the comparison was not trivial."""
    assert np.all(seen > 0), f"{seen[0]} accepted, {seen[1]} rejected"


# With the bonus scale, a gamma of all scales is one of all but the last.
COMBINATIONS = [(1, True), (2, True), (1, False), (2, False), (3, False)]


@pytest.mark.parametrize(("gamma", "bonus"), COMBINATIONS)
def test_any_seed_label_guidance_and_filter_with_any_draft(gamma, bonus):
    seen = assert_exact(Speculative(gamma=gamma, bonus=bonus), requests(1))
    assert_mixed(seen["close"])
    assert seen["the target itself"][1] == 0
    assert seen["random"][1] > seen["close"][1] > seen["very close"][1]


def test_these_are_more_than_200_combinations():
    assert len(COMBINATIONS) * len(DISTANCES) * len(requests(1)) > 200


def test_a_draft_of_other_width_and_depth():
    models = {"other": tiny_models(draft=var_config(width=24, depth=2))}
    seen = assert_exact(Speculative(gamma=2), requests(3), models=models)
    assert seen["other"][1] > 0


@pytest.mark.parametrize("progress", ["per-sample", "minimum"])
@pytest.mark.parametrize("bonus", [True, False])
def test_batches_that_accept_different_lengths(progress, bonus):
    decoder = Speculative(gamma=2, bonus=bonus, progress=progress)
    assert_mixed(assert_exact(decoder, requests(3))["close"])


SETTINGS = {
    "recycled tokens": Speculative(gamma=2, recycle=True),
    "recycled tokens without bonus": Speculative(gamma=2, recycle=True, bonus=False),
    "recycled tokens, minimum": Speculative(gamma=2, recycle=True, progress="minimum"),
    "refined until nothing changes": Speculative(refine=SCALES),
    "adaptive gamma": Speculative(
        gamma="adaptive", adaptive_gammas=(0, 1, 3), adaptive_overhead=1.0, cost=FREE_TURNS
    ),
    "adaptive gamma, recycled": Speculative(
        gamma="adaptive",
        adaptive_gammas=(0, 2),
        adaptive_overhead=1.0,
        recycle=True,
        cost=FREE_TURNS,
    ),
    "adaptive gamma, never alone": Speculative(gamma="adaptive", adaptive_gammas=(1, 2)),
    "adaptive gamma, the draft on trial": OnTrial(Exact(), scales=2),
    "adaptive gamma, beginning with a window": Speculative(
        gamma="adaptive", adaptive_overhead=1.0, cost=FREE_TURNS, begin=FIRST_CHOICE + 1
    ),
    "adaptive gamma, the draft on trial on all scales": OnTrial(Exact(), scales=SCALES),
    "a gamma a scale": Speculative(gamma=(0, 2, 1)),
}


@pytest.mark.parametrize("decoder", SETTINGS.values(), ids=SETTINGS)
def test_every_way_of_choosing_windows_and_proposals(decoder):
    assert_mixed(assert_exact(decoder, requests(3))["close"])


def test_self_speculation():
    decoder = Speculative(gamma=SCALES, self_speculative=True)
    alone = {"no draft": drafts()["random"].without_draft}
    seen = assert_exact(decoder, requests(3), models=alone)
    assert seen["no draft"][1] > 0


def test_without_guidance_and_filters_compiled_in():
    sampling = TokenSampling(guided_until=0, filtering=False)
    seen = assert_exact(Speculative(gamma=2), requests(1), sampling)
    assert_mixed(seen["close"])


@pytest.mark.parametrize("until", [1, 2])
def test_guidance_that_ends_within_a_window(until):
    config = SamplingConfig(cfg=1.5, guidance_until=until)
    sampling = TokenSampling.of(config, SCALES)
    seen = assert_exact(Speculative(gamma=2, recycle=True), requests(3), sampling)
    assert_mixed(seen["close"])


@pytest.mark.parametrize("bonus", [True, False])
@pytest.mark.parametrize("until", [1, 2])
def test_check_until_is_exact_before_it_and_the_drafts_own_from_there(until, bonus):
    decoder = Speculative(gamma=2, check_until=until, bonus=bonus)
    # A draft that takes over from the target's own scales: the handoff of large to small.
    handoff = Handoff(entry=until, order="target-draft")
    for request in requests(3, seeds=range(4)):
        for models in drafts().values():
            made = decode(decoder, models, request)
            np.testing.assert_array_equal(made.tokens, decode(handoff, models, request).tokens)
            early = slice(0, PYRAMID.offsets[until])
            np.testing.assert_array_equal(
                made.tokens[:, early], decode(TargetOnly(), models, request).tokens[:, early]
            )


def test_tokens_given_from_outside():
    random = np.random.default_rng(3)
    shape = (2, PYRAMID.total_length)
    forced = ForcedTokens(
        tokens=random.integers(0, 8, shape).astype(np.int32), forced=random.random(shape) < 0.4
    )
    wanted = requests(2, forced=forced)
    seen = assert_exact(Speculative(gamma=2), wanted)
    assert_mixed(seen["close"])
    for request in wanted[:3]:
        tokens = decode(Speculative(gamma=2), drafts()["random"], request).tokens
        np.testing.assert_array_equal(tokens[forced.forced], forced.tokens[forced.forced])


def test_a_sample_does_not_depend_on_the_batch_it_sits_in():
    decoder = Speculative(gamma=2)
    together = decode(decoder, drafts()["close"], tiny_request((1, 4, 2), 9))
    for i, label in enumerate((1, 4, 2)):
        alone = decode(decoder, drafts()["close"], tiny_request((label,), 9, first_sample=i))
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[i])


PYRAMIDS = [ScalePyramid(sides) for sides in ((1, 3), (1, 2, 4), (1, 2, 3, 4))]


@settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    pyramid=st.sampled_from(PYRAMIDS),
    gamma=st.integers(1, 4),
    bonus=st.booleans(),
    recycle=st.booleans(),
    progress=st.sampled_from(["per-sample", "minimum"]),
    batch=st.integers(1, 3),
    distance=st.sampled_from([0.05, 0.1, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_small_pyramid(pyramid, gamma, bonus, recycle, progress, batch, distance, seed):
    models = tiny_models(distance, pyramid=pyramid)
    decoder = Speculative(
        gamma=min(gamma, pyramid.num_scales), bonus=bonus, recycle=recycle, progress=progress
    )
    for run in range(3):
        request = tiny_request(range(batch), (seed + run) % 2**32, pyramid=pyramid, top_k=6)
        np.testing.assert_array_equal(
            decode(decoder, models, request).tokens,
            decode(TargetOnly(), models, request).tokens,
        )
