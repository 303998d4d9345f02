"""The programs of a pipeline: one for all, or classes, tokens and images apart."""

import itertools

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

from sdvar_jax.decoding import DraftOnly, Handoff, TargetOnly, make_request
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.speculative.cost_model import ALONE
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.programs import Programs, Run, compiled, needed_bytes, split
from sdvar_jax.sampling import SamplingConfig

DECODERS = [
    TargetOnly(),
    DraftOnly(),
    Handoff(entry=1),
    Speculative(gamma=2),
    Speculative(gamma="adaptive", adaptive_gammas=(0, 1)),
    Speculative(gamma="adaptive", adaptive_gammas=(0, 1), begin=ALONE),
]


def pipeline_of(apart):
    pipeline = Pipeline(small_target(), small_vqvae(), small_draft())
    pipeline._programs = Programs(apart=apart)
    return pipeline


@pytest.mark.parametrize("decoder", DECODERS, ids=str)
def test_apart_they_make_the_same_pictures(decoder):
    together, apart = (
        pipeline_of(apart).sample([1, 2, 0], decoder=decoder, batch_size=2)
        for apart in (False, True)
    )
    for one, other in zip(together.tokens, apart.tokens, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(together.images, apart.images, atol=1e-5)


def test_a_run_tells_what_its_programs_need():
    sampling, memory = SamplingConfig(), {}
    for apart in (False, True):
        pipeline = pipeline_of(apart)
        request = make_request(np.asarray([1]), 0, sampling, pipeline.target.config.pyramid)
        compiled_in = pipeline.prepare(TargetOnly(), sampling)
        lowered, weights = pipeline.lower(request, TargetOnly(), compiled_in)
        run = compiled(lowered)
        assert isinstance(run, Run)
        assert (run.classes is not None) == (run.images is not None) == apart
        _, images = run(weights=weights, request=request)
        assert images.shape == (1, *(pipeline.vqvae.config.image_side,) * 2, 3)
        memory[apart] = run.memory_bytes
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    assert held / 2 < memory[False] < memory[True] < 2 * memory[False]
    assert needed_bytes(run.classes, run.tokens, run.images) == memory[True]


def lowered_for(pipeline, decoder):
    sampling = SamplingConfig()
    request = make_request(np.asarray([1]), 0, sampling, pipeline.target.config.pyramid)
    compiled_in = pipeline.prepare(decoder, sampling)
    return pipeline.lower(request, decoder, compiled_in)


def test_behind_a_decoder_that_waits_for_the_device_the_images_are_in_the_same_program():
    pipeline = pipeline_of(True)
    for decoder in (TargetOnly(), Speculative(gamma=2)):
        lowered, _ = lowered_for(pipeline, decoder)
        assert (lowered.images is None) == decoder.waits == (decoder != TargetOnly())


@pytest.mark.parametrize(
    ("decoder", "target", "draft"),
    [
        (TargetOnly(), True, False),
        (DraftOnly(), False, True),
        (Handoff(entry=1), True, True),
        (Speculative(gamma="adaptive", adaptive_gammas=(0, 1), begin=ALONE), True, False),
    ],
    ids=str,
)
def test_class_modulations_are_made_of_the_models_that_run(decoder, target, draft):
    lowered, _ = lowered_for(pipeline_of(True), decoder)
    made = lowered.classes.out_info
    assert (made.target is not None, made.draft is not None) == (target, draft)


def test_a_program_is_given_its_own_arrays_alone():
    pipeline = pipeline_of(True)
    weights = lowered_for(pipeline, Handoff(entry=1))[1]
    whole = {id(leaf) for leaf in jax.tree.leaves(weights)}
    parts = [
        [id(leaf) for leaf in jax.tree.leaves(part)]
        for part in (
            weights.of_classes(),
            weights.behind_classes().of_tokens(),
            weights.of_images(),
        )
    ]
    assert sorted(itertools.chain(*parts)) == sorted(whole)
    assert min(map(len, parts)) > 0


@pytest.mark.parametrize("options", [{}, {"shared_aln": True}])
def test_nothing_but_modulations_reads_what_conditions(options):
    """The arrays that stand in where modulations are given already are never used."""
    model = small_model(small_var_config(**options))
    definition, parts = split(model)
    assert len(parts.conditioning) == (6 if options else 5)
    labels = jnp.asarray([1, 2])
    modulations = definition.merge(parts._replace(body=None)).modulations(labels)
    jax.tree.map(np.testing.assert_array_equal, modulations, model.modulations(labels))
    x = jnp.ones((2, 1, model.config.width))
    without = definition.merge(parts._replace(conditioning=None))

    def logits(one):
        hidden, _ = one.hidden(one.embed_first(modulations) + x, modulations, one.make_cache(2))
        return one.logits(hidden, modulations)

    np.testing.assert_array_equal(logits(without), logits(model))


def test_what_makes_pictures_alone_is_given_no_transformer():
    pipeline = pipeline_of(True)
    latent = pipeline.target.config.pyramid.latent_side
    shape = (4, 1, latent, latent, pipeline.vqvae.config.latent_channels)
    lowered, weights = pipeline.lower_images(jax.ShapeDtypeStruct(shape, np.float32))
    assert (weights.target, weights.draft) == (None, None)
    side = pipeline.vqvae.config.image_side
    assert lowered.out_info.shape == (1, side, side, 3)
