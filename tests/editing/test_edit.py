"""Zero-shot edits with a small model."""

import numpy as np
import pytest
from small_models import (
    SMALL_CLASSES,
    SMALL_PYRAMID,
    SMALL_SIDE,
    small_draft,
    small_target,
    small_vqvae,
)

from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.editing import Box, edit_class, edit_image, inpaint, kept_tokens, outpaint
from sdvar_jax.errors import SdvarError
from sdvar_jax.image_tokenizer import ImageTokenizer
from sdvar_jax.pipeline import Pipeline

HALF = Box(0, 0, SMALL_SIDE // 2, SMALL_SIDE)
TWO = {"count": 2, "seed": 3}


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(small_target(), small_vqvae())


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(4).random((SMALL_SIDE, SMALL_SIDE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def own_tokens(pipeline, image):
    return np.concatenate(ImageTokenizer(pipeline.vqvae).tokenize(image[None]), axis=1)[0]


@pytest.fixture(scope="module")
def filled(pipeline, image):
    return inpaint(pipeline, image, HALF, **TWO)


def joined(result):
    return np.concatenate(result.sampled.tokens, axis=1)


def test_the_images_own_tokens_stay_outside_the_mask(filled, own_tokens):
    kept = kept_tokens(HALF.mask(SMALL_SIDE), SMALL_PYRAMID)
    np.testing.assert_array_equal(filled.kept, kept)
    np.testing.assert_array_equal(joined(filled)[:, kept], own_tokens[None, kept].repeat(2, 0))


def test_the_model_makes_what_is_inside(filled, own_tokens):
    made = joined(filled)[:, ~filled.kept]
    assert (made != own_tokens[~filled.kept]).any()
    assert (made[0] != made[1]).any()


def test_the_images_own_pixels_stay_outside_the_mask(filled, image):
    outside = ~HALF.mask(SMALL_SIDE)
    np.testing.assert_array_equal(filled.images[:, outside], image[None, outside].repeat(2, 0))
    assert (filled.images[0] != filled.images[1]).any()


def test_raw_pixels_are_the_models_own(pipeline, image, filled):
    raw = inpaint(pipeline, image, HALF, keep_pixels=False, **TWO)
    np.testing.assert_array_equal(raw.images, filled.sampled.images)


def test_an_edit_without_a_class_uses_no_class(filled):
    np.testing.assert_array_equal(filled.sampled.labels, [SMALL_CLASSES] * 2)


def test_a_class_changes_what_is_made_and_nothing_else(pipeline, image, filled):
    changed = edit_class(pipeline, image, 4, HALF, **TWO)
    np.testing.assert_array_equal(changed.sampled.labels, [4, 4])
    assert (joined(changed)[:, ~filled.kept] != joined(filled)[:, ~filled.kept]).any()
    np.testing.assert_array_equal(joined(changed)[:, filled.kept], joined(filled)[:, filled.kept])


def test_an_outpainted_image_stands_in_a_larger_frame(pipeline, image):
    result = outpaint(pipeline, image, shift=(0.5, 0.0), **TWO)
    right = result.images[:, :, SMALL_SIDE // 2 :]
    np.testing.assert_array_equal(right, image[None, :, : SMALL_SIDE // 2].repeat(2, 0))
    assert result.kept.any()


def test_nothing_compiles_anew_for_another_mask_class_or_image(pipeline, image, filled):
    compiled = len(pipeline._compiled)
    edit_image(pipeline, 1 - image, Box(0, 0, 2, 2).mask(SMALL_SIDE), label=1, **TWO)
    assert len(pipeline._compiled) == compiled


@pytest.mark.slow
def test_speculative_decoding_makes_the_targets_own_edit(image, filled):
    pair = Pipeline(small_target(), small_vqvae(), small_draft())
    same = inpaint(pair, image, HALF, decoder=Speculative(gamma=2), **TWO)
    np.testing.assert_array_equal(joined(same), joined(filled))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": SMALL_CLASSES + 1}, "out of range"),
        ({"count": 0}, "count must be at least 1"),
        ({"tolerance": 2.0}, "tolerance must be"),
        ({"feather": -1}, "feather must not be negative"),
    ],
)
def test_settings_are_refused_before_any_model_runs(pipeline, image, options, message, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a model ran")

    monkeypatch.setattr(ImageTokenizer, "tokenize", fail)
    monkeypatch.setattr(Pipeline, "_compile", fail)
    with pytest.raises(SdvarError, match=message):
        edit_image(pipeline, image, HALF.mask(SMALL_SIDE), **options)
