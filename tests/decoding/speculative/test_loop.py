"""The loop as a whole: how often it calls, what rollback leaves behind, what it records."""

import contextlib
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import (
    FREE_TURNS,
    PYRAMID,
    QUICK_COMPILE,
    TRYING,
    Models,
    decode,
    tiny_draft,
    tiny_models,
    tiny_quantizer,
    tiny_request,
    tiny_target,
    var_config,
)

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding import (
    DraftOnly,
    ForcedTokens,
    Speculative,
    TargetOnly,
    TokenSampling,
)
from sdvar_jax.decoding.speculative import MAKER_NAMES, Exact, Match, Residual, checking, drafting
from sdvar_jax.decoding.speculative import loop as loop_module
from sdvar_jax.decoding.speculative.commit import commit
from sdvar_jax.models import VAR

SCALES = PYRAMID.num_scales
TEN = ScalePyramid(range(1, 11))
PLAIN = TokenSampling(guided_until=0, filtering=False)


def ten_scales(distance):
    """As few numbers as ten scales can do with."""
    config = var_config(width=4, pyramid=TEN, vocab=2)
    return Models.of(tiny_target(config), tiny_quantizer(TEN, 2), tiny_draft(distance, config))


def ten_scale_request(seed=0):
    return tiny_request((1,), seed, pyramid=TEN, cfg=0.0, top_k=0, top_p=0.0)


@pytest.fixture(scope="module")
def in_pieces():
    """Runs the loop on the host, its two steps compiled a window.

    The steps of one gamma serve the others, where a whole loop would be compiled for each; models
    and request must stay the same. Returns what was decoded, and the windows of the forwards in the
    order they were made.
    """
    compiled = {}
    made = []

    def piece(step, name, argument):
        def run_step(run, state, **options):
            window = options[argument]
            made.append((name, window))
            if (name, window) not in compiled:
                compiled[name, window] = jax.jit(
                    lambda state: step(run, state, **{argument: window}),
                    compiler_options=QUICK_COMPILE,
                )
            with jax.disable_jit(False):
                return compiled[name, window](state)

        return run_step

    def run(decoder, models, request):
        made.clear()
        with pytest.MonkeyPatch.context() as patch, jax.disable_jit():
            draft = piece(drafting.draft_window, "draft", "window")
            for module in (drafting, loop_module):
                patch.setattr(module, "draft_window", draft)
            patch.setattr(
                loop_module,
                "check_window_once",
                piece(checking.check_window_once, "target", "checked"),
            )
            return decoder.decode(models.merged(), request, PLAIN), list(made)

    return run


@pytest.mark.parametrize("gamma", range(1, 10))
def test_a_draft_that_is_the_target_is_accepted_and_saves_calls(in_pieces, gamma):
    request, scales = ten_scale_request(), TEN.num_scales
    made, forwards = in_pieces(Speculative(gamma=gamma), ten_scales(0.0), request)
    counters = made.counters
    assert counters.accepted.sum() == counters.drafted.sum() > 0
    assert counters.rejected.sum() == 0
    assert counters.target_calls <= math.ceil(scales / (gamma + 1))
    # The counters count the forwards that were made.
    windows = {name: [w for kind, w in forwards if kind == name] for name in ("draft", "target")}
    assert counters.target_calls == len(windows["target"])
    assert counters.draft_calls == len(windows["draft"])
    checked = [each.window for each in windows["target"]]
    starts, stops = ([getattr(w, end) for w in checked] for end in ("start", "stop"))
    assert counters.window_starts[: len(starts)].tolist() == starts
    assert counters.window_stops[: len(stops)].tolist() == stops
    assert counters.target_tokens == sum(len(w.positions(TEN)) for w in checked)
    assert counters.draft_tokens == sum(len(w.positions(TEN)) for w in windows["draft"])
    # Windows follow each other without gap or overlap.
    assert (starts[0], stops[-1]) == (0, scales)
    assert starts[1:] == stops[:-1]


@pytest.mark.parametrize(
    "gamma",
    [pytest.param(g, marks=() if g == 3 else pytest.mark.slow) for g in range(1, 10)],
)
def test_ten_scales_in_one_compiled_loop(gamma):
    decoder = Speculative(gamma=gamma)
    calls = {}
    for distance in (0.0, 0.02, 1.0):
        models, request = ten_scales(distance), ten_scale_request(5)
        made = decode(decoder, models, request, PLAIN)
        alone = decode(TargetOnly(), models, request, PLAIN)
        np.testing.assert_array_equal(made.tokens, alone.tokens)
        calls[distance] = made.counters.target_calls
        assert made.counters.target_calls <= TEN.num_scales
    assert calls[0.0] <= math.ceil(TEN.num_scales / (gamma + 1))
    assert calls[0.0] <= calls[0.02] <= calls[1.0]


def assert_the_draft_made_the_rest(tokens, checked, models, request, sampling=None):
    """What the draft alone makes of the checked tokens."""
    forced = np.zeros(tokens.shape, bool)
    forced[:, checked] = True
    given = request.replace(forced=ForcedTokens(tokens=tokens, forced=forced))
    np.testing.assert_array_equal(decode(DraftOnly(), models, given, sampling).tokens, tokens)


@pytest.mark.parametrize(
    ("rule", "commit"),
    [(Exact(), "target"), (Residual(), "target"), (Match(), "target"), (Match(), "draft")],
)
@pytest.mark.parametrize("gamma", [1, 2])
@pytest.mark.parametrize("bonus", [False, True])
def test_behind_the_last_checked_scale_the_draft_goes_on_from_what_was_committed(
    rule, commit, gamma, bonus
):
    """It may have drafted other tokens than were accepted, or none of a bonus scale."""
    decoder = Speculative(gamma=gamma, bonus=bonus, check_until=2, accept=rule, commit=commit)
    models, checked = tiny_models(1.0), slice(0, PYRAMID.offsets[2])
    for seed in range(4):
        request = tiny_request((1, 3), seed)
        if rule.name == "match":
            request = request.replace(threshold=jnp.float32(0.0))
        made = decode(decoder, models, request).tokens
        assert_the_draft_made_the_rest(made, checked, models, request)


def test_behind_a_bonus_the_draft_goes_on_from_what_it_has_not_seen():
    """Six scales, of which four are checked: windows end early, and samples apart."""
    pyramid = ScalePyramid(range(1, 7))
    config = var_config(width=4, pyramid=pyramid, vocab=2)
    quantizer, checked, calls = tiny_quantizer(pyramid, 2), slice(0, pyramid.offsets[4]), set()
    for distance in (0.02, 0.3):
        models = Models.of(tiny_target(config), quantizer, tiny_draft(distance, config))
        for seed in range(4):
            request = tiny_request((1, 3, 2), seed, pyramid=pyramid, cfg=0.0, top_k=0, top_p=0.0)
            made = decode(Speculative(gamma=4, check_until=4), models, request, PLAIN)
            calls.add(int(made.counters.target_calls))
            assert_the_draft_made_the_rest(made.tokens, checked, models, request, PLAIN)
    assert len(calls) > 1


@pytest.mark.parametrize(
    ("options", "of_target", "of_draft"),
    [
        ({"gamma": 2}, 3, 2),
        ({"gamma": 2, "bonus": False}, 3, 3),
        ({"gamma": 1}, 3, 2),
        ({"gamma": 2, "check_until": 2}, 2, 3),
        ({"gamma": "adaptive", "adaptive_gammas": (0, 9)}, 3, 2),
        ({"gamma": "adaptive", "adaptive_gammas": (0, 1), "bonus": False}, 3, 3),
    ],
)
def test_caches_have_room_for_what_a_model_is_asked_for(monkeypatch, options, of_target, of_draft):
    draft, made = var_config(width=4), {}
    make_cache = VAR.make_cache

    def noted(model, rows, scales=None):
        made["draft" if model.config == draft else "target"] = scales
        return make_cache(model, rows, scales)

    monkeypatch.setattr(VAR, "make_cache", noted)
    models, decoder = tiny_models(draft=draft).merged(), Speculative(**options)
    sampling = TokenSampling(guided_until=SCALES)
    jax.eval_shape(lambda request: decoder.decode(models, request, sampling), tiny_request())
    assert made == {"target": of_target, "draft": of_draft}


@pytest.mark.parametrize("bonus", [True, False])
@pytest.mark.parametrize("gamma", [1, 2])
def test_calls_with_and_without_the_bonus_scale(gamma, bonus):
    made = decode(Speculative(gamma=gamma, bonus=bonus), tiny_models(0.0), tiny_request((1,)))
    assert made.counters.target_calls == math.ceil(SCALES / (gamma + bonus))
    assert made.counters.rejected.sum() == 0


@pytest.mark.parametrize("distance", [0.1, 1.0])
def test_no_draft_costs_more_calls_than_scales(distance):
    for seed in range(20):
        for bonus in (True, False):
            request = tiny_request((0, 1, 2), seed)
            made = decode(Speculative(gamma=2, bonus=bonus), tiny_models(distance), request)
            assert made.counters.target_calls <= SCALES


def test_going_back_to_the_slowest_sample_never_saves_a_call():
    calls = {"per-sample": 0, "minimum": 0}
    for seed in range(40):
        request, made = tiny_request((0, 1, 2), seed), {}
        for progress in calls:
            decoder = Speculative(gamma=2, bonus=False, progress=progress)
            made[progress] = decode(decoder, tiny_models(0.1), request).counters.target_calls
            calls[progress] += made[progress]
        assert made["per-sample"] <= made["minimum"]
    assert calls["per-sample"] < calls["minimum"]


def test_adaptive_windows_know_the_batch():
    """What pays for one sample does not where eight must pass at once."""
    seen = jnp.asarray((800.0, 1000.0), jnp.float32)
    drafts = {}
    for batch in (1, 8):
        request = tiny_request((0,) * batch).replace(acceptance_seen=seen)
        decoder = Speculative(gamma="adaptive", adaptive_gammas=(0, 2), cost=FREE_TURNS)
        drafts[batch] = decode(decoder, tiny_models(), request).counters.drafts
    assert drafts[1] > drafts[8] == 0


class TestHowAnAdaptiveRunBegins:
    """Decided once, from what earlier runs saw, before anything is compiled."""

    def counters(self, seen, *, distance=0.1, **options):
        request = tiny_request((0, 1, 2)).replace(acceptance_seen=jnp.asarray(seen, jnp.float32))
        decoder = Speculative(gamma="adaptive", adaptive_gammas=(0, 2), **options)
        decoder = decoder.settled(PYRAMID, request.batch, seen)
        return decode(decoder, tiny_models(distance), request).counters

    def test_the_target_makes_all_scales_where_the_draft_is_known_to_fail(self):
        counters = self.counters((0.0, 1000.0))
        assert (counters.target_calls, counters.draft_calls) == (SCALES, 0)
        assert counters.window_starts.tolist() == list(range(SCALES))

    @pytest.mark.parametrize("distance", [0.0, 0.1, 1.0])
    def test_an_unknown_draft_is_judged_beside_the_target(self, distance):
        """Whether a draft passes is asked at each scale, whatever became of the one before."""
        counters = self.counters((0.0, 0.0), distance=distance, adaptive_overhead=0.3, cost=TRYING)
        assert (counters.target_calls, counters.draft_calls) == (SCALES, 1)
        assert counters.draft_tokens == PYRAMID.total_length
        assert counters.drafted.tolist() == [3] * SCALES
        np.testing.assert_array_equal(counters.accepted + counters.rejected, counters.drafted)
        assert (distance == 0.0) == (counters.rejected.sum() == 0)

    def test_nothing_is_tried_where_nothing_may_be_lost(self):
        counters = self.counters((0.0, 0.0), adaptive_overhead=0.0, cost=TRYING)
        assert (counters.target_calls, counters.draft_calls) == (SCALES, 0)

    @pytest.mark.parametrize(
        "decoder",
        [
            Speculative(gamma=1),
            Speculative(gamma="adaptive", adaptive_gammas=(1, 2)),
            Speculative(gamma="adaptive", check_until=2),
            Speculative(gamma="adaptive", self_speculative=True),
            TargetOnly(),
        ],
        ids=["fixed", "never alone", "the draft makes the rest", "no draft", "no windows"],
    )
    def test_others_leave_it_to_the_loop(self, decoder):
        assert decoder.settled(PYRAMID, 1, (0.0, 1000.0)) is decoder

    @pytest.mark.parametrize(
        ("options", "at_once"),
        [
            ({"gamma": 2}, True),
            ({"gamma": 2, "bonus": False}, False),
            ({"gamma": (2, 1, 1)}, True),
            ({"gamma": 1, "check_until": 2}, True),
            ({"gamma": 1, "check_until": 2, "bonus": False}, False),
            ({"gamma": 1, "check_until": 2, "accept": Match()}, False),
            ({"gamma": 1, "check_until": 2, "accept": Match(), "commit": "draft"}, True),
            ({"refine": 2}, True),
            ({"gamma": 2, "self_speculative": True}, False),
        ],
    )
    def test_whether_the_first_window_may_be_all(self, options, at_once):
        """It reaches to the last scale that is checked, and the draft has seen what passed."""
        settled = Speculative(**options).settled(PYRAMID, 1, (0.0, 0.0))
        assert settled.at_once == at_once

    def test_more_than_a_few_samples_are_not_expected_to_pass_at_once(self):
        decoder = Speculative(gamma=2)
        settled = [decoder.settled(PYRAMID, batch, (0.0, 0.0)).at_once for batch in (4, 5)]
        assert settled == [True, False]

    def test_the_host_waits_only_for_what_the_device_decides(self):
        decoder = Speculative(gamma="adaptive", cost=FREE_TURNS)
        waits = {seen: decoder.settled(PYRAMID, 1, (seen, 1000.0)).waits for seen in (0.0, 1000.0)}
        assert waits == {0.0: False, 1000.0: True}

    def test_a_draft_that_is_known_to_pass_begins_with_a_window(self):
        counters = self.counters((1000.0, 1000.0), distance=0.0, cost=FREE_TURNS)
        assert counters.drafts > 0
        assert counters.target_calls < SCALES


@pytest.mark.parametrize("calls", [1, 2])
def test_a_refinement_makes_at_most_as_many_calls(calls):
    decoder = Speculative(refine=calls)
    exact = Speculative(refine=SCALES)
    for seed in range(10):
        models, request = tiny_models(0.1), tiny_request((0, 1, 2), seed)
        made = decode(decoder, models, request)
        assert made.counters.target_calls <= calls
        alone = decode(TargetOnly(), models, request).tokens
        # Each call makes at least one scale more the target's own.
        early = slice(0, PYRAMID.offsets[calls])
        np.testing.assert_array_equal(made.tokens[:, early], alone[:, early])
        np.testing.assert_array_equal(decode(exact, models, request).tokens, alone)


def poisoned(run, state, checked, verdict):
    """``commit``, and then everything behind the committed scales spoilt."""
    state = commit(run, state, checked, verdict)
    offsets = jnp.asarray(run.pyramid.offsets)
    positions = jnp.arange(run.pyramid.total_length)
    # Recycled proposals are meant to be read.
    kept = state.proposed if run.recycle else state.progress

    def spoil_cache(cache, scales):
        behind = (positions >= offsets[scales])[None, :, None, None]
        return jax.tree.map(
            lambda array: jnp.where(behind[:, : array.shape[1]], jnp.nan, array), cache
        )

    entries = jnp.arange(run.pyramid.num_scales + 1)[:, None]
    spoilt = (entries > kept[None])[..., None, None, None]
    logits = state.draft_logits
    return state.replace(
        tokens=jnp.where(positions[None] >= offsets[kept][:, None], 0, state.tokens),
        f_hats=jnp.where(spoilt, jnp.nan, state.f_hats),
        target_cache=spoil_cache(state.target_cache, state.committed),
        draft_cache=spoil_cache(state.draft_cache, state.draft_length),
        draft_logits=None if logits is None else jnp.full_like(logits, jnp.nan),
    )


@contextlib.contextmanager
def poison(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checking, "commit", poisoned)
        yield


# A rule's own class, so that the poisoned loop is not taken for one compiled before.
class _Exact(type(Speculative().accept)):
    pass


@pytest.mark.parametrize("progress", ["per-sample", "minimum"])
@pytest.mark.parametrize(
    "options", [{}, {"bonus": False}, {"recycle": True}], ids=["bonus", "no bonus", "recycled"]
)
def test_rollback_leaves_no_trace(monkeypatch, options, progress):
    decoder = Speculative(gamma=2, accept=_Exact(), progress=progress, **options)
    rejected = 0
    for seed in range(8):
        models, request = tiny_models(0.1), tiny_request((0, 1, 2), seed)
        wanted = decode(TargetOnly(), models, request)
        with poison(monkeypatch):
            made = decode(decoder, models, request)
        np.testing.assert_array_equal(made.tokens, wanted.tokens)
        np.testing.assert_allclose(made.f_hats, wanted.f_hats, atol=1e-5)
        rejected += made.counters.rejected.sum()
    assert rejected > 0


def test_rollback_leaves_no_trace_in_what_the_rule_residual_looks_at(monkeypatch):
    class Rule(Residual):
        pass

    models, request = tiny_models(0.1), tiny_request((0, 1, 2), 3)
    wanted = decode(Speculative(gamma=2, accept=Residual()), models, request)
    with poison(monkeypatch):
        made = decode(Speculative(gamma=2, accept=Rule()), models, request)
    assert made.counters.rejected.sum() > 0
    np.testing.assert_array_equal(made.tokens, wanted.tokens)


def test_the_poison_works(monkeypatch):
    """Spoiling one scale more than may be spoilt is noticed."""

    class Rule(_Exact):
        pass

    def too_much(run, state, checked, verdict):
        state = poisoned(run, state, checked, verdict)
        return state.replace(
            target_cache=jax.tree.map(
                lambda array: jnp.full_like(array, jnp.nan), state.target_cache
            )
        )

    models, request = tiny_models(0.1), tiny_request((0, 1, 2), 3)
    with monkeypatch.context() as patch:
        patch.setattr(checking, "commit", too_much)
        made = decode(Speculative(gamma=2, accept=Rule()), models, request)
    assert (made.tokens != decode(TargetOnly(), models, request).tokens).any()


@functools.cache
def traced(seed):
    decoder = Speculative(gamma=2, trace=True)
    return decode(decoder, tiny_models(0.1), tiny_request((0, 1, 2), seed))


@pytest.mark.parametrize("seed", range(4))
def test_the_trace_tells_what_happened_at_each_call(seed):
    made = traced(seed)
    trace, calls = made.trace, int(made.counters.target_calls)
    before = np.zeros(3, int)
    for call in range(calls):
        now = trace.progress[call]
        assert np.all(now >= before)
        assert now.min() > before.min()
        start, stop = made.counters.window_starts[call], made.counters.window_stops[call]
        assert start == before.min() < stop
        for sample in range(3):
            done = slice(0, PYRAMID.offsets[now[sample]])
            committed = trace.committed_tokens[call, sample, done]
            np.testing.assert_array_equal(committed, made.tokens[sample, done])
            f_hat = made.f_hats[now[sample], sample]
            np.testing.assert_allclose(trace.f_hat[call, sample], f_hat, atol=1e-5)
            self_made = slice(PYRAMID.offsets[start], PYRAMID.offsets[start + 1])
            # Where the first scale was accepted, the proposal and what was committed agree.
            if made.counters.makers[sample, start] == MAKER_NAMES.index("draft, accepted"):
                np.testing.assert_array_equal(
                    trace.proposed_tokens[call, sample, self_made], committed[self_made]
                )
        before = now
    assert before.tolist() == [SCALES] * 3
    assert np.all(trace.progress[calls:] == 0)


def test_tracing_changes_nothing_and_is_off_by_default():
    made = decode(Speculative(gamma=2), tiny_models(0.1), tiny_request((0, 1, 2), 1))
    assert made.trace is None
    np.testing.assert_array_equal(made.tokens, traced(1).tokens)


def relaxed(threshold, seed=0, **options):
    request = tiny_request((0, 1, 2), seed, threshold=threshold)
    return decode(Speculative(gamma=2, accept=Match(), **options), tiny_models(1.0), request)


def test_the_dial_of_a_relaxed_rule_reaches_from_the_draft_to_the_target():
    models, request = tiny_models(1.0), tiny_request((0, 1, 2))
    lax, strict = (relaxed(threshold, commit="draft", bonus=False) for threshold in (0.0, 1.0))
    assert lax.counters.rejected.sum() == 0
    assert lax.counters.accepted.sum() == 3 * SCALES
    assert strict.counters.rejected.sum() > 0
    np.testing.assert_array_equal(strict.tokens, decode(TargetOnly(), models, request).tokens)
    np.testing.assert_array_equal(lax.tokens, decode(DraftOnly(), models, request).tokens)


def test_more_agreement_asked_for_is_never_fewer_rejections():
    rejected = [
        sum(relaxed(threshold, seed).counters.rejected.sum() for seed in range(10))
        for threshold in (0.0, 0.25, 0.5, 1.0)
    ]
    assert rejected == sorted(rejected)
    assert rejected[0] < rejected[1] < rejected[-1]


def test_committing_the_targets_tokens_corrects_accepted_scales():
    """With everything accepted the target still has the last word on each token."""
    lax = relaxed(0.0, commit="target", bonus=False)
    assert lax.counters.rejected.sum() == 0
    assert (lax.tokens != relaxed(0.0, commit="draft", bonus=False).tokens).any()
    first = slice(0, 1)
    alone = decode(TargetOnly(), tiny_models(1.0), tiny_request((0, 1, 2)))
    np.testing.assert_array_equal(lax.tokens[:, first], alone.tokens[:, first])


def test_a_lax_rule_never_commits_what_nobody_proposed():
    decoder = Speculative(gamma=SCALES, accept=Match(), commit="draft", self_speculative=True)
    made = decode(decoder, tiny_models(), tiny_request((0, 1, 2), threshold=0.0))
    assert made.tokens.min() >= 0
