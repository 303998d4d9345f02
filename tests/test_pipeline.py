"""Sampling: what a picture depends on, what it does not, and what is refused."""

import numpy as np
import pytest
from decoding_models import FREE_TURNS
from small_models import (
    SMALL_CLASSES,
    SMALL_PYRAMID,
    SMALL_SIDE,
    small_draft,
    small_model,
    small_target,
    small_var_config,
    small_vqvae,
)

from sdvar_jax.decoding import DraftOnly, Handoff
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.errors import SdvarError
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.sampling import SamplingConfig

LABELS = [1, 7, 3, 9]


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(small_target(), small_vqvae())


@pytest.fixture(scope="module")
def in_batches_of_two(pipeline):
    return pipeline.sample(LABELS, seed=5, batch_size=2)


@pytest.fixture(scope="module")
def measured_one_by_one(pipeline):
    return pipeline.sample(LABELS, seed=5, batch_size=1, measure=True)


@pytest.fixture
def never_compiled(monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a program was compiled")

    monkeypatch.setattr(Pipeline, "_compile", fail)


def assert_same_tokens(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def differ(first, second):
    return any((a != b).any() for a, b in zip(first, second, strict=True))


def test_a_result_holds_images_in_0_1_tokens_of_every_scale_and_labels(in_batches_of_two):
    result = in_batches_of_two
    assert result.images.shape == (4, SMALL_SIDE, SMALL_SIDE, 3)
    assert result.images.dtype == np.float32
    assert 0 <= result.images.min() < result.images.max() <= 1
    assert [each.shape for each in result.tokens] == [(4, n) for n in SMALL_PYRAMID.lengths]
    assert all(each.dtype == np.int32 for each in result.tokens)
    np.testing.assert_array_equal(result.labels, LABELS)
    assert result.statistics is None
    assert result.traces == ()


def test_a_sample_does_not_depend_on_the_batch_it_sits_in(measured_one_by_one, in_batches_of_two):
    assert_same_tokens(measured_one_by_one.tokens, in_batches_of_two.tokens)
    np.testing.assert_allclose(measured_one_by_one.images, in_batches_of_two.images, atol=1e-4)


def test_a_batch_that_does_not_fill_up_is_cut(pipeline, in_batches_of_two):
    three = pipeline.sample(LABELS[:3], seed=5, batch_size=2)
    assert three.images.shape[0] == 3
    assert_same_tokens(three.tokens, [each[:3] for each in in_batches_of_two.tokens])


def test_the_same_seed_gives_the_same_picture(pipeline, in_batches_of_two):
    again = pipeline.sample(LABELS, seed=5, batch_size=2)
    assert_same_tokens(again.tokens, in_batches_of_two.tokens)
    np.testing.assert_array_equal(again.images, in_batches_of_two.images)


def test_another_seed_gives_another_picture(pipeline, in_batches_of_two):
    other = pipeline.sample(LABELS, seed=6, batch_size=2)
    assert differ(other.tokens, in_batches_of_two.tokens)


def test_the_same_label_twice_gives_two_pictures(pipeline):
    twice = pipeline.sample([1, 1], seed=5)
    assert differ([each[:1] for each in twice.tokens], [each[1:] for each in twice.tokens])


def test_another_label_gives_another_picture(pipeline, in_batches_of_two):
    other = pipeline.sample([2, *LABELS[1:]], seed=5, batch_size=2)
    assert differ([each[:1] for each in other.tokens], [t[:1] for t in in_batches_of_two.tokens])
    assert_same_tokens(
        [each[1:] for each in other.tokens], [each[1:] for each in in_batches_of_two.tokens]
    )


def test_nothing_compiles_anew_for_seeds_labels_guidance_and_filters(pipeline, in_batches_of_two):
    compiled = len(pipeline._compiled)
    results = [
        pipeline.sample([4, 2], seed=seed, sampling=SamplingConfig(**options))
        for seed, options in (
            (0, {}),
            (2**32 - 1, {"cfg": 4.0}),
            (1, {"top_k": 5}),
            (2, {"top_k": 0, "top_p": 0.5}),
            (3, {"guidance_schedule": "constant"}),
        )
    ]
    assert len(pipeline._compiled) == compiled
    assert all(result.timings == {"compile": 0.0} for result in results)


def test_its_default_settings_count_where_none_are_given(pipeline, in_batches_of_two):
    settings = SamplingConfig(cfg=4.0, top_k=5, top_p=0.5)
    with_defaults = Pipeline(small_target(), small_vqvae(), default_sampling=settings)
    with_defaults._compiled = pipeline._compiled  # the programs are the same
    by_default = with_defaults.sample(LABELS, seed=5, batch_size=2)
    asked = pipeline.sample(LABELS, seed=5, batch_size=2, sampling=settings)
    assert_same_tokens(by_default.tokens, asked.tokens)
    assert differ(by_default.tokens, in_batches_of_two.tokens)
    other = with_defaults.sample(LABELS, seed=5, batch_size=2, sampling=SamplingConfig())
    assert_same_tokens(other.tokens, in_batches_of_two.tokens)


def test_progress_is_told_after_every_batch(pipeline, in_batches_of_two):
    told = []
    pipeline.sample(LABELS[:3], batch_size=2, progress=told.append)
    assert told == [2, 3]


def test_measuring_times_each_phase_with_compilation_apart(pipeline, measured_one_by_one):
    timings = measured_one_by_one.timings
    assert set(timings) == {"compile", "tokens", "images"}
    assert all(seconds > 0 for seconds in timings.values())
    again = pipeline.sample([3], batch_size=1, measure=True)
    assert again.timings["compile"] == 0.0


def test_the_class_count_stands_for_no_class(pipeline):
    np.testing.assert_array_equal(pipeline.check_labels([SMALL_CLASSES]), [SMALL_CLASSES])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [SMALL_CLASSES + 1, 0, -1]}, r"labels \[-1, 11\] are out of range.*0\.\.9"),
        ({"labels": []}, "at least one class label"),
        ({"seed": -1}, r"seed must lie in 0\.\.4294967295, got -1"),
        ({"seed": 2**32}, "seed must lie in"),
        ({"batch_size": 0}, "batch size must be positive"),
        ({"decoder": DraftOnly()}, "the draft decoder needs a draft model"),
        ({"decoder": Speculative()}, "the speculative decoder needs a draft model"),
        ({"decoder": Handoff(1)}, "the handoff decoder needs a draft model"),
        (
            {"sampling": SamplingConfig(guidance_until=4)},
            r"guidance_until must lie in 0\.\.3, got 4",
        ),
    ],
)
@pytest.mark.usefixtures("never_compiled")
def test_settings_are_refused_before_any_compile(pipeline, arguments, message):
    arguments = {"labels": [1], **arguments}
    with pytest.raises(SdvarError, match=message):
        pipeline.sample(arguments.pop("labels"), **arguments)


@pytest.mark.parametrize(
    ("decoder", "threshold", "message"),
    [
        (Handoff(4), None, r"entry must lie in 0\.\.3"),
        (Speculative(gamma=4), None, "gamma must be at most 3"),
        (Speculative(check_until=4), None, r"check_until must lie in 1\.\.3"),
        (Speculative(), 0.5, "threshold of 'exact'"),
    ],
)
@pytest.mark.usefixtures("never_compiled")
def test_decoders_that_do_not_suit_the_pyramid_are_refused(decoder, threshold, message):
    pipeline = Pipeline(small_target(), small_vqvae(), small_draft())
    with pytest.raises(SdvarError, match=message):
        pipeline.sample([1], decoder=decoder, threshold=threshold)


@pytest.mark.parametrize(
    ("field", "value"),
    [("pyramid", (1, 2, 4)), ("vocab_size", 16), ("num_classes", 5), ("latent_channels", 4)],
)
def test_a_draft_that_differs_is_refused(field, value):
    if field == "pyramid":
        value = type(SMALL_PYRAMID)(value)
    draft = small_model(small_var_config(width=16, **{field: value}))
    with pytest.raises(SdvarError, match=f"draft and the target do not belong together; {field}"):
        Pipeline(small_target(), small_vqvae(), draft)


def test_decoders_with_and_without_a_draft_share_the_program_of_the_images():
    pair = Pipeline(small_target(), small_vqvae(), small_draft())
    pair.sample([1], measure=True)
    result = pair.sample([1], decoder=DraftOnly(), measure=True)
    assert result.timings["images"] > 0
    assert len({id(run.tokens) for run in pair._compiled.values()}) == 2
    assert len({id(run.images) for run in pair._compiled.values()}) == 1


def test_adaptive_windows_go_by_what_an_earlier_request_saw():
    """The draft agrees with nothing: a first request tries it out, a later one does not."""
    pair = Pipeline(small_target(), small_vqvae(), small_draft())
    decoder = Speculative(
        gamma="adaptive", adaptive_gammas=(0, 2), adaptive_overhead=0.5, cost=FREE_TURNS
    )
    first = pair.sample(LABELS, seed=5, decoder=decoder)
    accepted, judged = first.statistics.acceptance_seen
    assert accepted < judged
    later = pair.sample(LABELS, seed=5, decoder=decoder, earlier=first.statistics)
    assert first.statistics.num_drafts > 0
    assert later.statistics.num_drafts == 0
    assert_same_tokens(later.tokens, first.tokens)
