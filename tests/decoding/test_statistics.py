"""Statistics agree with each other and with the tokens they describe."""

import json

import numpy as np
import pytest
from decoding_models import PYRAMID, decode, tiny_models, tiny_request

from sdvar_jax.decoding import DecodingStatistics, Speculative, TargetOnly
from sdvar_jax.decoding.speculative import MAKER_NAMES, Counters

SCALES = PYRAMID.num_scales
LENGTHS = np.array(PYRAMID.lengths)


def counters(batch, **values):
    """Counters of one batch, nothing happened but what is said."""
    made = Counters.make(batch, SCALES, SCALES)
    return made.replace(**{name: np.asarray(value) for name, value in values.items()})


def two_batches():
    """Two batches of two; the last row only fills up the second batch."""
    first = counters(
        2,
        target_calls=2,
        draft_calls=3,
        target_tokens=14 + 9,
        draft_tokens=5,
        drafts=1,
        window_starts=[0, 2, -1],
        window_stops=[3, 3, -1],
        drafted=[2, 2, 0],
        accepted=[2, 1, 0],
        rejected=[0, 1, 0],
        agreed_tokens=[2, 7, 0],
        makers=[[1, 1, 3], [1, 2, 5]],
    )
    second = counters(
        2,
        target_calls=1,
        draft_calls=2,
        target_tokens=14,
        draft_tokens=5,
        drafts=1,
        window_starts=[0, -1, -1],
        window_stops=[3, -1, -1],
        drafted=[2, 2, 0],
        accepted=[2, 2, 0],
        rejected=[0, 0, 0],
        agreed_tokens=[2, 8, 0],
        makers=[[1, 1, 3], [1, 1, 3]],
    )
    return DecodingStatistics.of([first, second], [2, 1], PYRAMID)


def test_counts_are_summed_over_batches():
    made = two_batches()
    assert (made.samples, made.batches) == (3, 2)
    assert (made.target_calls, made.draft_calls, made.num_drafts) == (3, 5, 2)
    assert made.target_calls_per_batch == 1.5
    # Rows that only fill a batch up were computed as well.
    assert made.target_tokens_computed == 2 * (14 + 9) + 2 * 14
    assert made.draft_tokens_computed == 2 * 5 + 2 * 5
    assert made.windows == (((0, 3), (2, 3)), ((0, 3),))


def test_rates():
    made = two_batches()
    assert (made.num_draft_scales, made.num_accepted_scales) == (8, 7)
    assert (made.num_draft_tokens, made.num_accepted_tokens) == (4 * 1 + 4 * 4, 4 * 1 + 3 * 4)
    assert made.acceptance_rate == 7 / 8
    # Of the scales that were reached; none of these drafts stood behind a rejection.
    assert made.judged_acceptance_rate == 7 / 8
    assert made.acceptance_seen == (7, 8)
    assert made.token_agreement_rate == 19 / 20
    # Nine scales of three samples; two calls for each of the first two, one for the third.
    assert made.mean_acceptance_length == 9 / 5


def test_the_sizes_of_the_batches_are_their_own():
    """Three batches of 4, 4 and 1 are not three batches of 3."""
    calls = [3, 2, 1]
    batches = [
        counters(
            4,
            target_calls=n,
            window_starts=[0] * n + [-1] * (SCALES - n),
            window_stops=[1] * n + [-1] * (SCALES - n),
            makers=np.full((4, SCALES), MAKER_NAMES.index("target")),
        )
        for n in calls
    ]
    made = DecodingStatistics.of(batches, [4, 4, 1], PYRAMID)
    assert made.mean_acceptance_length == 9 * SCALES / (4 * 3 + 4 * 2 + 1 * 1)


def test_without_drafts_there_are_no_rates():
    made = DecodingStatistics.of([counters(1, makers=[[5, 5, 5]])], [1], PYRAMID)
    assert made.acceptance_rate is None
    assert made.judged_acceptance_rate is None
    assert made.token_agreement_rate is None
    assert made.mean_acceptance_length is None


def test_they_are_plain_json_and_a_short_table():
    made = two_batches()
    values = json.loads(json.dumps(made.to_dict()))
    assert values["acceptance_rate"] == 7 / 8
    assert values["makers"] == [[1, 1, 3], [1, 2, 5], [1, 1, 3]]
    assert values["maker_names"] == list(MAKER_NAMES)
    table = dict(made.table_rows())
    assert table["acceptance rate"] == "87.5 %"
    # Scales are counted from 1, as people do.
    assert table["windows of the first batch"] == "1-3 3"


DECODERS = {
    "bonus": Speculative(gamma=2),
    "minimum": Speculative(gamma=2, progress="minimum"),
    "recycled": Speculative(gamma=2, recycle=True),
    "check until 2": Speculative(gamma=2, check_until=2),
    "a gamma a scale": Speculative(gamma=(0, 2, 1)),
    "no draft": Speculative(gamma=SCALES, self_speculative=True),
}


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS)
def test_the_counters_of_a_run_agree_with_each_other(decoder):
    for seed in range(6):
        made = decode(decoder, tiny_models(0.1), tiny_request((0, 1, 2), seed)).counters
        calls = made.target_calls
        starts, stops = made.window_starts[:calls], made.window_stops[:calls]
        assert np.all(starts < stops)
        assert np.all(np.diff(starts) > 0)
        assert made.window_starts[calls:].tolist() == [-1] * (SCALES - calls)
        offsets = np.array(PYRAMID.offsets)
        assert made.target_tokens == (offsets[stops] - offsets[starts]).sum()
        assert np.all(made.accepted + made.rejected <= made.drafted)
        assert np.all(made.agreed_tokens <= made.drafted * LENGTHS)
        assert np.all(made.agreed_tokens >= made.accepted * LENGTHS)
        # Somebody made every scale of every sample.
        assert not np.any(made.makers == MAKER_NAMES.index("nobody"))
        by_maker = {
            name: (made.makers == number).sum(axis=0) for number, name in enumerate(MAKER_NAMES)
        }
        # Under the rule exact what is accepted stands, and what is rejected is corrected.
        np.testing.assert_array_equal(by_maker["draft, accepted"], made.accepted)
        np.testing.assert_array_equal(by_maker["target, corrected"], made.rejected)
        unchecked = by_maker["draft, unchecked"]
        limit = decoder.limit(SCALES)
        assert unchecked.tolist() == [0] * limit + [3] * (SCALES - limit)


def test_makers_agree_with_the_tokens():
    """Accepted and corrected scales tell where the draft agreed, given all before them."""
    for seed in range(6):
        models, request = tiny_models(0.1), tiny_request((1,), seed)
        made = decode(Speculative(gamma=2, trace=True), models, request)
        alone = decode(TargetOnly(), models, request).tokens
        for call in range(made.counters.target_calls):
            start = made.counters.window_starts[call]
            place = PYRAMID.window(start, start + 1)
            proposed = made.trace.proposed_tokens[call, :, place]
            maker = MAKER_NAMES[made.counters.makers[0, start]]
            if maker in ("draft, accepted", "target, corrected"):
                agrees = (proposed == alone[:, place]).all()
                assert agrees == (maker == "draft, accepted")


def test_the_draft_computes_what_it_proposes():
    made = decode(Speculative(gamma=2, bonus=False), tiny_models(0.0), tiny_request((1,))).counters
    assert made.draft_calls == SCALES
    assert made.draft_tokens == PYRAMID.total_length
    none = decode(DECODERS["no draft"], tiny_models(0.0), tiny_request((0, 1, 2))).counters
    assert (none.draft_calls, none.draft_tokens) == (0, 0)
