"""The programs of a pipeline: one for all, or tokens and images apart."""

import jax
import numpy as np
import pytest
from small_models import small_draft, small_target, small_vqvae

from sdvar_jax.decoding import TargetOnly, make_request
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.speculative.cost_model import ALONE
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.programs import Programs, Run, compiled, needed_bytes
from sdvar_jax.sampling import SamplingConfig

LEFT_TO_THE_TARGET = Speculative(gamma="adaptive", adaptive_gammas=(0, 1), begin=ALONE)
DECODERS = [TargetOnly(), Speculative(gamma=2), LEFT_TO_THE_TARGET]


def pipeline_of(apart):
    pipeline = Pipeline(small_target(), small_vqvae(), small_draft())
    pipeline._programs = Programs(apart=apart)
    return pipeline


@pytest.mark.parametrize("decoder", DECODERS, ids=["target", "draft of 2", "left to the target"])
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
        assert len(run.executables) == 1 + apart
        _, images = run(weights=weights, request=request)
        assert images.shape == (1, *(pipeline.vqvae.config.image_side,) * 2, 3)
        memory[apart] = run.memory_bytes
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    assert held / 2 < memory[False] < memory[True] < 2 * memory[False]
    assert needed_bytes(*run.executables) == memory[True]


def test_behind_a_decoder_that_waits_for_the_device_the_images_are_in_the_same_program():
    pipeline, sampling = pipeline_of(True), SamplingConfig()
    request = make_request(np.asarray([1]), 0, sampling, pipeline.target.config.pyramid)
    for decoder in DECODERS:
        compiled_in = pipeline.prepare(decoder, sampling)
        lowered, _ = pipeline.lower(request, decoder, compiled_in)
        assert len(lowered.programs) == (1 if decoder.waits else 2)
    assert [decoder.waits for decoder in DECODERS] == [False, True, False]


def test_a_program_is_given_its_own_arrays_alone():
    pipeline, sampling = pipeline_of(True), SamplingConfig()
    request = make_request(np.asarray([1]), 0, sampling, pipeline.target.config.pyramid)
    draft_given = []
    for decoder in DECODERS:
        compiled_in = pipeline.prepare(decoder, sampling)
        _, weights = pipeline.lower(request, decoder, compiled_in)
        _, of_tokens = pipeline.lower_tokens(request, decoder, compiled_in)
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
