"""What is compiled before there are weights is what samples with them."""

import jax
import numpy as np
import pytest
from decoding_models import QUICK_COMPILE
from flax import nnx
from jax_cache import jaxs_cache_in
from small_models import (
    SMALL_PYRAMID,
    SMALL_VQVAE,
    small_draft,
    small_target,
    small_var_config,
    small_vqvae,
)

from sdvar_jax import programs
from sdvar_jax.checkpoint import abstract_model
from sdvar_jax.config import BFLOAT16
from sdvar_jax.decoding import ForcedTokens, Handoff, TargetOnly, make_request
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.errors import SdvarError
from sdvar_jax.models.abstract import applied, is_abstract
from sdvar_jax.models.kernels import REFERENCE, SCANNED
from sdvar_jax.models.var.quantized import FLOAT, INT8
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.programs import Programs
from sdvar_jax.sampling import SamplingConfig

LABELS = [1, 7, 3]
DECODERS = [TargetOnly(), Speculative(gamma=2), Handoff(entry=2)]


def models():
    return small_target(), small_vqvae(), small_draft()


def planned(**options):
    """A pipeline of the same models without their weights."""
    return Pipeline(*(abstract_model(model.config, model.dtypes) for model in models()), **options)


def lowered_texts(pipeline, decoder):
    request = make_request(np.asarray([1]), 0, SamplingConfig(), SMALL_PYRAMID)
    compiled_in = pipeline.prepare(decoder, SamplingConfig())
    lowered, _ = pipeline.lower(pipeline._place(request), decoder, compiled_in)
    programs = (lowered.classes, lowered.begin, lowered.tokens, lowered.images, lowered.rest)
    return [None if program is None else program.as_text() for program in programs]


def assert_same(one, other):
    for a, b in zip(one.tokens, other.tokens, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.images, other.images)


def fails_once_called(monkeypatch, method):
    """Gives what makes a method of ``Pipeline`` fail from then on."""

    def fail(*args, **kwargs):
        raise AssertionError(f"{method} was called")

    return lambda: monkeypatch.setattr(Pipeline, method, fail)


@pytest.fixture
def never_compiled_again(monkeypatch):
    """Call it once everything ought to be compiled."""
    return fails_once_called(monkeypatch, "_compile")


@pytest.fixture
def never_traced(monkeypatch):
    """Call it once everything ought to be kept."""
    return fails_once_called(monkeypatch, "_compile_anew")


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
@pytest.mark.parametrize("measure", [False, True])
def test_a_pipeline_with_weights_samples_with_what_was_compiled(
    decoder, measure, never_compiled_again
):
    arguments = {"decoder": decoder, "batch_size": 2, "measure": measure}
    ahead = planned()
    assert ahead.compile(len(LABELS), **arguments) > 0
    pipeline = ahead.with_models(*models())
    never_compiled_again()
    result = pipeline.sample(LABELS, seed=3, **arguments)
    assert result.timings["compile"] == 0
    assert ahead.compile(len(LABELS), **arguments) == 0
    assert result.images.shape[0] == len(LABELS)


@pytest.mark.parametrize("weights", [FLOAT, INT8])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    "decoder",
    [*DECODERS, Speculative(gamma=2, at_once=True)],
    ids=["target", "speculative", "handoff", "at once"],
)
def test_the_programs_are_the_same_with_weights_and_without(decoder, apart, weights):
    with_weights, without = Pipeline(*models(), weights=weights), planned(weights=weights)
    for pipeline in (with_weights, without):
        pipeline._programs = Programs(apart=apart)
    assert lowered_texts(without, decoder) == lowered_texts(with_weights, decoder)


def test_the_pictures_are_the_same():
    ahead = planned()
    ahead.compile(len(LABELS))
    assert_same(ahead.with_models(*models()).sample(LABELS), Pipeline(*models()).sample(LABELS))


def test_on_a_mesh_as_well(never_compiled_again):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    wanted = Pipeline(*models(), mesh=mesh).sample(LABELS, measure=True)
    ahead = planned(mesh=mesh)
    ahead.compile(len(LABELS), measure=True)
    pipeline = ahead.with_models(*models())
    never_compiled_again()
    assert_same(pipeline.sample(LABELS, measure=True), wanted)


def test_with_tokens_from_outside_as_well(never_compiled_again):
    length = SMALL_PYRAMID.total_length
    given = np.arange(2 * length, dtype=np.int32).reshape(2, length) % 32
    ahead = planned()
    ahead.compile(2, forced=True)
    pipeline = ahead.with_models(*models())
    never_compiled_again()
    result = pipeline.sample([1, 2], forced=ForcedTokens(given, np.ones((2, length), bool)))
    np.testing.assert_array_equal(np.concatenate(result.tokens, axis=1), given)


def test_a_pipeline_without_weights_does_not_sample():
    with pytest.raises(SdvarError, match="no weights"):
        planned().sample([1])


def test_settings_are_refused_before_any_compile(never_compiled_again):
    never_compiled_again()
    for settings, said in (
        ({"samples": 0}, "number of pictures"),
        ({"samples": 2, "batch_size": 0}, "batch size"),
        ({"samples": 2, "decoder": Handoff(entry=9)}, "entry"),
    ):
        with pytest.raises(SdvarError, match=said):
            planned().compile(**settings)


@pytest.mark.parametrize(
    "target",
    [
        abstract_model(small_var_config(depth=2)),
        abstract_model(small_var_config(heads=4)),
        abstract_model(small_var_config(), BFLOAT16),
    ],
    ids=["of another size", "that splits the same shapes otherwise", "of another dtype"],
)
def test_models_are_refused_that_it_does_not_compile_for(target):
    with pytest.raises(SdvarError, match="configuration or dtypes"):
        Pipeline(target, abstract_model(SMALL_VQVAE)).with_models(small_target(), small_vqvae())


def test_a_draft_that_it_does_not_compile_for_is_refused():
    ahead = Pipeline(abstract_model(small_target().config), abstract_model(SMALL_VQVAE))
    with pytest.raises(SdvarError, match="configuration or dtypes"):
        ahead.with_models(*models())


def test_a_function_of_an_abstract_model_computes_nothing():
    def doubled(model):
        model.head_bias[...] = 2 * model.head_bias[...]
        return model

    assert is_abstract(applied(doubled, abstract_model(small_target().config)))
    assert not is_abstract(applied(doubled, small_target()))


@pytest.fixture
def jaxs_cache(tmp_path, monkeypatch):
    """As in a new process, with a cache of JAX's own that is empty: what it has is not kept."""
    monkeypatch.setattr(programs, "compiler_options", lambda: QUICK_COMPILE)
    with jaxs_cache_in(tmp_path / "jax"):
        jax.clear_caches()
        yield


@pytest.mark.parametrize("decoder", DECODERS, ids=lambda decoder: decoder.name)
@pytest.mark.parametrize("measure", [False, True])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.usefixtures("jaxs_cache")
def test_a_later_start_finds_the_programs_in_the_cache(
    decoder, measure, apart, tmp_path, never_traced
):
    def pipeline_of():
        pipeline = Pipeline(*models(), cache=tmp_path)
        pipeline._programs = Programs(apart=apart)
        return pipeline

    arguments = {"decoder": decoder, "batch_size": 2, "measure": measure}
    first = pipeline_of().sample(LABELS, **arguments)
    never_traced()
    assert_same(pipeline_of().sample(LABELS, seed=0, **arguments), first)


@pytest.mark.usefixtures("jaxs_cache")
def test_what_is_compiled_ahead_is_kept_as_well(tmp_path, never_traced):
    planned(cache=tmp_path).compile(2)
    never_traced()
    Pipeline(*models(), cache=tmp_path).sample([1, 2], seed=4)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, {"sampling": SamplingConfig(cfg=0.0)}),
        ({}, {"decoder": Speculative(gamma=1)}),
        ({}, {"measure": True}),
        ({"weights": INT8}, {}),
        ({"kernels": SCANNED}, {}),
    ],
    ids=["switch", "decoder", "programs", "weights", "kernels"],
)
@pytest.mark.usefixtures("jaxs_cache")
def test_other_settings_do_not_meet_those_programs(options, arguments, tmp_path):
    Pipeline(*models(), cache=tmp_path, kernels=REFERENCE).sample([1])
    kept = set(tmp_path.rglob("*.programs"))
    options = {"kernels": REFERENCE, **options}
    other, plain = (Pipeline(*models(), cache=cache, **options) for cache in (tmp_path, None))
    assert_same(other.sample([1], **arguments), plain.sample([1], **arguments))
    assert len(kept) == 1
    assert len(set(tmp_path.rglob("*.programs"))) == 2


@pytest.mark.usefixtures("jaxs_cache")
def test_what_jaxs_cache_gave_is_left_to_it(tmp_path):
    wanted = Pipeline(*models()).sample([1])
    assert list((tmp_path / "jax").glob("*-cache"))
    jax.clear_caches()
    for _ in "from the file", "from memory":
        assert_same(Pipeline(*models(), cache=tmp_path).sample([1]), wanted)
        assert not list(tmp_path.rglob("*.programs"))


@pytest.mark.usefixtures("jaxs_cache")
def test_programs_of_a_decoder_from_elsewhere_are_not_kept(tmp_path):
    class Own(TargetOnly):
        pass

    Pipeline(*models(), cache=tmp_path).sample([1], decoder=Own())
    assert not list(tmp_path.rglob("*.programs"))


@pytest.mark.usefixtures("jaxs_cache")
def test_models_on_another_device_do_not_meet_programs_of_the_first(tmp_path):
    wanted = Pipeline(*models(), cache=tmp_path).sample([1])
    elsewhere = [
        nnx.merge(graph, jax.device_put(state, jax.devices()[1]))
        for graph, state in map(nnx.split, models())
    ]
    assert_same(Pipeline(*elsewhere, cache=tmp_path).sample([1]), wanted)
    assert len(list(tmp_path.rglob("*.programs"))) == 1


@pytest.mark.usefixtures("jaxs_cache")
def test_programs_for_several_devices_are_not_kept(tmp_path):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    Pipeline(*models(), mesh=mesh, cache=tmp_path).sample([1, 2])
    assert not list(tmp_path.rglob("*.programs"))
