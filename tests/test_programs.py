"""The programs of a pipeline: one for all, or classes or images apart."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_models import (
    small_draft,
    small_model,
    small_target,
    small_var_config,
    small_vqvae,
)

from sdvar_jax.decoding import TargetOnly, make_request
from sdvar_jax.decoding.handoff import ORDERS, Handoff
from sdvar_jax.decoding.speculative import Exact, Residual, Speculative
from sdvar_jax.decoding.speculative.alone import OnTrial
from sdvar_jax.decoding.speculative.cost_model import ALONE
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.programs import Programs, Run, Weights, compiled, needed_bytes, split
from sdvar_jax.sampling import SamplingConfig

LEFT_TO_THE_TARGET = Speculative(gamma="adaptive", adaptive_gammas=(0, 1), begin=ALONE)
DECODERS = [TargetOnly(), Speculative(gamma=2), LEFT_TO_THE_TARGET]
ON_TRIAL = OnTrial(Exact(), scales=2)
HANDOFFS = [Handoff(entry=2, order=order) for order in ORDERS]


def arguments_of(pipeline, decoder):
    sampling = SamplingConfig()
    request = make_request(np.asarray([1]), 0, sampling, pipeline.target.config.pyramid)
    return request, decoder, pipeline.prepare(decoder, sampling)


def lowered_for(pipeline, decoder):
    return pipeline.lower(*arguments_of(pipeline, decoder))


def pipeline_of(apart):
    pipeline = Pipeline(small_target(), small_vqvae(), small_draft())
    pipeline._programs = Programs(apart=apart)
    return pipeline


def assert_same(together, apart):
    assert (together.statistics is None) == (apart.statistics is None)
    if together.statistics is not None:
        assert together.statistics.to_dict() == apart.statistics.to_dict()
    for one, other in zip(together.tokens, apart.tokens, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(together.images, apart.images, atol=1e-5)


@pytest.mark.parametrize(
    "decoder",
    [*DECODERS, ON_TRIAL, *HANDOFFS, Handoff(entry=0), Handoff(entry=3)],
    ids=[
        *("target", "draft of 2", "left to the target", "draft on trial"),
        *(*ORDERS, "second alone", "first alone"),
    ],
)
def test_apart_they_make_the_same_pictures(decoder):
    together, apart = (
        pipeline_of(apart).sample([1, 2, 0], decoder=decoder, batch_size=2)
        for apart in (False, True)
    )
    assert_same(together, apart)


def noting_the_rest(calls, compile_run):
    """Compiles as ``compile_run`` does; each call of what is left leaves a mark."""

    def compile_noted(*arguments):
        run = compile_run(*arguments)

        def rest(**given):
            calls.append(1)
            return run.rest(**given)

        return dataclasses.replace(run, rest=rest)

    return compile_noted


@pytest.mark.parametrize("same", [True, False], ids=["all pass", "few pass"])
@pytest.mark.parametrize(
    "options",
    [
        {"gamma": 2},
        {"gamma": 1, "check_until": 2},
        {"gamma": 2, "check_until": 2, "bonus": False},
        {"refine": 2},
        {"gamma": 2, "accept": Residual(), "trace": True},
    ],
    ids=["all scales", "until the last", "without a bonus", "refined", "traced"],
)
def test_where_the_first_check_may_be_all_the_rest_is_asked_for_where_it_is_not(
    monkeypatch, options, same
):
    decoder, asked = Speculative(**options), []
    target, draft = small_target(), small_target() if same else small_draft()
    made = []
    for apart in (False, True):
        pipeline = Pipeline(target, small_vqvae(), draft)
        pipeline._programs = Programs(apart=apart)
        if apart:
            assert decoder.settled(target.config.pyramid, 2, (0.0, 0.0)).at_once
            monkeypatch.setattr(pipeline, "_compile", noting_the_rest(asked, pipeline._compile))
        made.append(pipeline.sample([1, 2], decoder=decoder))
    together, apart = made
    assert asked == ([] if same else [1])
    assert apart.statistics is not None
    assert_same(together, apart)
    jax.tree.map(np.testing.assert_array_equal, together.traces, apart.traces)


def test_the_picture_is_asked_for_before_the_check_is_waited_for():
    order = []

    class Through:
        def __bool__(self):
            order.append("waited")
            return True

    class Made:
        decoded = SimpleNamespace(f_hats=None)
        through = Through()

    def part(name, makes=None):
        return lambda **_: order.append(name) or makes

    run = Run(
        begin=part("proposals"),
        tokens=part("check", Made()),
        images=part("images"),
        rest=part("rest"),
    )
    run(weights=Weights(None, None, None, None), request=None)
    assert order == ["proposals", "check", "images", "waited"]


def test_what_the_programs_of_an_optimistic_run_need_together():
    pipeline = pipeline_of(True)
    decoder = Speculative(gamma=2).settled(pipeline.target.config.pyramid, 1, (0.0, 0.0))
    run = lowered_for(pipeline, decoder)[0].compile()
    each = [needed_bytes(part, run.images) for part in (run.begin, run.tokens, run.rest)]
    assert run.memory_bytes == max(each) < sum(each)
    # The caches that a part is given are those that it gives back.
    for part in (run.tokens, run.rest):
        assert part.memory_analysis().alias_size_in_bytes > 0


def test_a_run_tells_what_its_programs_need():
    memory = {}
    for apart in (False, True):
        pipeline = pipeline_of(apart)
        arguments = arguments_of(pipeline, TargetOnly())
        lowered, weights = pipeline.lower(*arguments)
        run = compiled(lowered)
        assert isinstance(run, Run)
        assert (run.classes is None, run.images is not None) == (True, apart)
        _, images = run(weights=weights, request=arguments[0])
        assert images.shape == (1, *(pipeline.vqvae.config.image_side,) * 2, 3)
        memory[apart] = run.memory_bytes
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    assert held / 2 < memory[False] < memory[True] < 2 * memory[False]
    assert needed_bytes(run.tokens, run.images) == memory[True]


def test_with_a_decoder_that_waits_for_the_device_the_classes_are_apart_and_not_the_images():
    pipeline = pipeline_of(True)
    for decoder in DECODERS:
        lowered, _ = lowered_for(pipeline, decoder)
        assert (lowered.classes is not None) == (lowered.images is None) == decoder.waits
    assert [decoder.waits for decoder in DECODERS] == [False, True, False]


@pytest.mark.parametrize("decoder", [*HANDOFFS, ON_TRIAL], ids=[*ORDERS, "draft on trial"])
def test_each_half_is_given_its_own_model_alone(decoder):
    lowered, weights = lowered_for(pipeline_of(True), decoder)
    assert lowered.classes is None
    assert lowered.images is not None
    first, second = decoder.halves
    assert {first, second} == {"target", "draft"}
    for role, program in ((first, lowered.begin), (second, lowered.tokens)):
        given = weights.of_half(role)
        assert [getattr(given, name) is None for name in decoder.halves] == [
            role != first,
            role != second,
        ]
        shapes = {leaf.shape for leaf in jax.tree.leaves(program.in_avals)}
        assert {leaf.shape for leaf in jax.tree.leaves(given)} <= shapes


def test_a_program_can_be_compiled_while_the_next_is_lowered(monkeypatch):
    pipeline, order = pipeline_of(True), []
    programs, lower_images = pipeline._programs, pipeline._programs.lower_images

    def noted(*arguments):
        order.append("images lowered")
        return lower_images(*arguments)

    monkeypatch.setattr(programs, "lower_images", noted)
    arguments = pipeline._arguments(*arguments_of(pipeline, TargetOnly()))
    programs._each(arguments, lambda program: order.append("taken"))
    assert order == ["taken", "images lowered", "taken"]


def test_what_the_programs_of_a_waiting_decoder_need_together():
    pipeline = pipeline_of(True)
    lowered, _ = lowered_for(pipeline, Speculative(gamma=2))
    run = lowered.compile()
    assert run.memory_bytes == needed_bytes(run.classes, run.tokens) > needed_bytes(run.tokens)


def test_the_arrays_of_a_run_are_shared_out_among_its_programs():
    _, weights = lowered_for(pipeline_of(True), Speculative(gamma=2))
    everything = sorted(id(leaf) for leaf in jax.tree.leaves(weights))
    for parts in (
        (weights.of_classes(), weights.behind_classes()),
        (weights.of_tokens(), weights.of_images()),
    ):
        leaves = [[id(leaf) for leaf in jax.tree.leaves(part)] for part in parts]
        assert sorted(itertools.chain(*leaves)) == everything
        assert min(map(len, leaves)) > 0


@pytest.mark.parametrize("options", [{}, {"shared_aln": True}])
def test_nothing_but_modulations_reads_what_conditions(options):
    """The zeros that stand in where modulations are given already are never used."""
    model = small_model(small_var_config(**options))
    definition, parts = split(model)
    assert len(parts.conditioning) == (6 if options else 5)
    modulations = model.modulations(jnp.asarray([1, 2]))
    alone = definition.merge(parts._replace(body=None)).modulations(jnp.asarray([1, 2]))
    jax.tree.map(np.testing.assert_array_equal, alone, modulations)

    def logits(one):
        x = one.embed_first(modulations)
        hidden, _ = one.hidden(x, modulations, one.make_cache(2))
        return one.logits(hidden, modulations)

    without = definition.merge(parts._replace(conditioning=None))
    np.testing.assert_array_equal(logits(without), logits(model))


def test_a_program_is_given_its_own_arrays_alone():
    pipeline = pipeline_of(True)
    draft_given = []
    for decoder in DECODERS:
        _, weights = lowered_for(pipeline, decoder)
        _, of_tokens = pipeline.lower_tokens(*arguments_of(pipeline, decoder))
        assert of_tokens.drawing is None
        assert weights.of_images().quantizer is None
        draft_given.append(weights.draft is not None)
    assert draft_given == [False, True, False]


def test_what_makes_pictures_alone_is_given_no_transformer():
    pipeline = pipeline_of(True)
    latent = pipeline.target.config.pyramid.latent_side
    shape = (4, 1, latent, latent, pipeline.vqvae.config.latent_channels)
    lowered, weights = pipeline.lower_images(jax.ShapeDtypeStruct(shape, np.float32))
    assert (weights.target, weights.quantizer, weights.draft) == (None, None, None)
    side = pipeline.vqvae.config.image_side
    assert lowered.out_info.shape == (1, side, side, 3)
