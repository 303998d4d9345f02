"""Commit and rollback: what a verdict makes of tokens, progress, f_hat and the draft's cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import PYRAMID, QUICK_COMPILE, VOCAB, tiny_models, tiny_request

from sdvar_jax.decoding import TokenSampling
from sdvar_jax.decoding.f_hat import NO_TOKEN
from sdvar_jax.decoding.speculative import MAKER_NAMES, Exact
from sdvar_jax.decoding.speculative.commit import Verdict, commit, commit_unchecked
from sdvar_jax.decoding.speculative.run import SpeculativeRun
from sdvar_jax.decoding.speculative.state import initial_state
from sdvar_jax.decoding.speculative.windows import check_window, plan_windows

SCALES = PYRAMID.num_scales
BATCH = 2
# Scales 0 and 1 are drafted, scale 2 is the bonus.
WINDOW = check_window(0, 2, SCALES, bonus=True)
PLACES = [PYRAMID.window(scale, scale + 1) for scale in range(SCALES)]
ACCEPTED, CORRECTED, BONUS, UNCHECKED, TARGET = (
    MAKER_NAMES.index(name)
    for name in (
        "draft, accepted",
        "target, corrected",
        "target, bonus",
        "draft, unchecked",
        "target",
    )
)


def make_run(limit=SCALES, **options):
    values = {
        "commit_draft": False,
        "recycle": False,
        "per_sample": True,
        "refine": None,
        **options,
    }
    return SpeculativeRun(
        models=tiny_models().merged(),
        target_modulations=None,
        draft_modulations=None,
        request=tiny_request((0,) * BATCH),
        sampling=TokenSampling(guided_until=SCALES),
        rule=Exact(),
        plan=plan_windows(((2,),) * limit, limit, bonus=True),
        **values,
    )


@functools.partial(
    jax.jit, static_argnames=("options", "checked", "given"), compiler_options=QUICK_COMPILE
)
def committed(proposals, targets, passed, progress, options, checked, given):
    run = make_run(**dict(options))
    models = run.models
    state = initial_state(models.target.config, models.quantizer, run.request, trace=True)
    state = state.replace(
        tokens=proposals,
        progress=progress,
        proposed=jnp.maximum(progress, given),
        draft_length=jnp.asarray(given, jnp.int32),
    )
    place = PYRAMID.window(checked.window.start, checked.window.stop)
    return commit(run, state, checked, Verdict(passed=passed, tokens=targets[:, place]))


PROPOSALS = np.full((BATCH, PYRAMID.total_length), 1, np.int32)
TARGETS = np.full((BATCH, PYRAMID.total_length), 2, np.int32)


def after(passed, progress=(0, 0), targets=TARGETS, checked=WINDOW, given=2, **options):
    """The state after a verdict on proposals of ones where the target says twos."""
    proposals = PROPOSALS.copy()
    proposals[:, PYRAMID.offsets[given] :] = NO_TOKEN
    for sample, scales in enumerate(progress):
        place = slice(0, PYRAMID.offsets[scales])
        proposals[sample, place] = PROPOSALS[sample, place]
    return jax.device_get(
        committed(
            proposals,
            targets,
            np.asarray(passed).reshape(BATCH, checked.drafted),
            np.asarray(progress, np.int32),
            tuple(sorted(options.items())),
            checked,
            given,
        )
    )


def agreeing(scales):
    """The target's tokens where it agrees with the proposals at the first ``scales`` scales."""
    tokens = TARGETS.copy()
    for sample, count in enumerate(scales):
        tokens[sample, : PYRAMID.offsets[count]] = 1
    return tokens


def by_scale(state, sample):
    """The one token each scale is filled with."""
    values = [np.unique(state.tokens[sample, place]) for place in PLACES]
    assert all(value.size == 1 for value in values)
    return [int(value[0]) for value in values]


def test_what_passed_is_committed_and_the_targets_tokens_at_the_first_scale_that_did_not():
    state = after([[True, False], [True, True]], targets=agreeing((1, 2)))
    assert state.progress.tolist() == [2, 3]
    assert by_scale(state, 0) == [1, 2, NO_TOKEN]
    assert by_scale(state, 1) == [1, 1, 2]
    assert state.counters.makers.tolist() == [[ACCEPTED, CORRECTED, 0], [ACCEPTED, ACCEPTED, BONUS]]


def test_a_scale_that_passes_behind_a_rejected_one_is_not_committed():
    state = after([[False, True], [False, True]])
    assert state.progress.tolist() == [1, 1]
    assert by_scale(state, 0) == [2, NO_TOKEN, NO_TOKEN]
    assert state.counters.accepted.tolist() == [0, 0, 0]
    assert state.counters.rejected.tolist() == [2, 0, 0]


def test_every_verdict_commits_at_least_one_scale():
    for options in ({}, {"per_sample": False}, {"recycle": True}):
        assert after([[False, False], [False, False]], **options).progress.min() == 1


def test_f_hat_is_that_of_the_committed_tokens_for_both_models():
    """One accumulator: neither updated twice nor run apart between draft and target."""
    state = after([[True, False], [True, True]], targets=agreeing((1, 2)))
    quantizer = tiny_models().merged().quantizer
    for sample, scales in enumerate(state.progress):
        maps = tuple(
            jnp.asarray(state.tokens[sample : sample + 1, place]) for place in PLACES[:scales]
        )
        wanted = quantizer.f_hats(maps)[:, 0]
        np.testing.assert_allclose(state.f_hats[1 : scales + 1, sample], wanted, atol=1e-5)
        np.testing.assert_allclose(state.trace.f_hat[0, sample], wanted[-1], atol=1e-5)


def test_the_minimum_rule_takes_all_samples_back_to_the_slowest():
    state = after([[False, True], [True, True]], targets=agreeing((0, 2)), per_sample=False)
    assert state.progress.tolist() == [1, 1]
    assert by_scale(state, 1) == [1, NO_TOKEN, NO_TOKEN]
    # Accepted scales that were taken back are not counted; they are judged again.
    assert state.counters.accepted.tolist() == [1, 0, 0]


def test_a_rejection_that_is_taken_back_is_not_counted():
    state = after([[False, True], [True, False]], targets=agreeing((0, 1)), per_sample=False)
    assert state.counters.accepted.tolist() == [1, 0, 0]
    assert state.counters.rejected.tolist() == [1, 0, 0]


def test_what_a_sample_committed_before_the_others_stays():
    state = after([[False, False], [False, False]], progress=(0, 3))
    assert state.progress.tolist() == [1, 3]
    assert by_scale(state, 1) == [1, 1, 1]
    # Its drafts are neither judged nor counted again.
    assert state.counters.rejected.tolist() == [1, 0, 0]
    assert state.counters.drafted.tolist() == [1, 1, 0]


@pytest.mark.parametrize(("commit_draft", "token"), [(True, 1), (False, 2)])
def test_an_accepted_scale_keeps_the_drafts_tokens_or_takes_the_targets(commit_draft, token):
    state = after([[True, False], [True, False]], commit_draft=commit_draft)
    assert by_scale(state, 0) == [token, 2, NO_TOKEN]
    assert state.counters.accepted.tolist() == [2, 0, 0]


def test_recycling_proposes_the_targets_tokens_behind_a_rejection():
    state = after([[False, False], [False, False]], recycle=True)
    assert state.progress.tolist() == [1, 1]
    assert state.proposed.tolist() == [3, 3]
    assert by_scale(state, 0) == [2, 2, 2]


@pytest.mark.parametrize(
    ("passed", "agree", "length"),
    [
        # Keys and values of a scale come from the tokens before it, so those of the first scale
        # with other tokens still hold.
        ([True, True], 2, 2),
        ([True, False], 1, 2),
        ([False, False], 0, 1),
    ],
)
def test_the_drafts_cache_is_valid_up_to_the_first_changed_scale(passed, agree, length):
    for options in ({}, {"recycle": True}):
        state = after([passed, passed], targets=agreeing((agree, agree)), **options)
        assert state.draft_length == length


def test_the_drafts_cache_goes_back_with_the_slowest_sample():
    state = after([[True, True], [False, True]], targets=agreeing((2, 0)))
    assert state.draft_length == 1


def test_the_last_call_of_a_refinement_commits_everything():
    state = after([[True, False], [False, False]], targets=agreeing((1, 0)), refine=1, recycle=True)
    assert state.progress.tolist() == [3, 3]
    assert [by_scale(state, sample) for sample in range(2)] == [[1, 2, 2], [2, 2, 2]]
    # It was not all accepted for that.
    assert state.counters.accepted.tolist() == [1, 0, 0]
    assert state.counters.rejected.tolist() == [1, 1, 0]


def test_an_earlier_call_of_a_refinement_commits_what_passed():
    state = after([[True, False], [True, False]], targets=agreeing((1, 1)), refine=2, recycle=True)
    assert state.progress.tolist() == [2, 2]


def test_where_nothing_was_proposed_nothing_counts_as_a_draft():
    state = after([[False, False], [False, False]], given=0, recycle=True)
    assert state.counters.drafted.tolist() == [0, 0, 0]
    assert state.counters.rejected.tolist() == [0, 0, 0]
    assert state.counters.drafts == 0
    assert state.counters.makers[:, 0].tolist() == [TARGET, TARGET]


def test_the_last_scale_is_committed_like_any_other():
    checked = check_window(1, 2, SCALES, bonus=False)
    progress, targets = (1, 1), agreeing((3, 2))
    state = after([[True, True], [True, False]], progress, targets, checked, given=3)
    assert state.progress.tolist() == [3, 3]
    assert by_scale(state, 0) == [1, 1, 1]
    assert by_scale(state, 1) == [1, 1, 2]
    assert np.isfinite(state.f_hats).all()


def test_a_window_without_a_draft_is_the_targets_own():
    checked = check_window(2, 2, SCALES, bonus=True)
    assert checked.drafted == 0
    state = after(np.zeros((BATCH, 0), bool), (2, 2), checked=checked)
    assert state.progress.tolist() == [3, 3]
    assert state.counters.makers[:, 2].tolist() == [TARGET, TARGET]


def test_counts_and_trace_of_a_call():
    state = after([[True, False], [True, True]], targets=agreeing((1, 2)))
    counters = state.counters
    assert (counters.target_calls, counters.drafts) == (1, 1)
    assert counters.target_tokens == PYRAMID.total_length
    assert (counters.window_starts[0], counters.window_stops[0]) == (0, 3)
    assert counters.window_starts[1:].tolist() == [-1, -1]
    assert counters.drafted.tolist() == [2, 2, 0]
    assert counters.accepted.tolist() == [2, 1, 0]
    assert counters.rejected.tolist() == [0, 1, 0]
    assert counters.agreed_tokens.tolist() == [2, 4, 0]
    assert state.trace.progress[0].tolist() == [2, 3]
    np.testing.assert_array_equal(state.trace.proposed_tokens[0, :, :5], 1)
    np.testing.assert_array_equal(state.trace.committed_tokens[0], state.tokens)


def test_the_scales_behind_the_last_checked_one_are_taken_as_the_draft_made_them():
    run = make_run(limit=2)
    models = run.models
    state = initial_state(models.target.config, models.quantizer, run.request)
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, VOCAB, PROPOSALS.shape), jnp.int32)
    state = state.replace(tokens=tokens, progress=jnp.full((BATCH,), 2, jnp.int32))
    done = commit_unchecked(run, state)
    assert done.progress.tolist() == [3, 3]
    np.testing.assert_array_equal(done.tokens, tokens)
    assert done.counters.makers[:, 2].tolist() == [UNCHECKED, UNCHECKED]
    assert done.counters.target_calls == 0
