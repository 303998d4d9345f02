"""Images to tokens and back."""

import jax
import numpy as np
import pytest
from small_models import SMALL_PYRAMID, SMALL_SIDE, small_vqvae

from sdvar_jax.errors import SdvarError
from sdvar_jax.image_tokenizer import ImageTokenizer, psnr


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, SMALL_SIDE, SMALL_SIDE, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def tokenizer():
    return ImageTokenizer(small_vqvae(), batch_size=2)


def test_tokens_are_the_vqvaes_own(tokenizer, images):
    wanted = jax.jit(small_vqvae().tokenize)(images[:2] * 2 - 1)
    got = tokenizer.tokenize(images)
    assert [each.shape for each in got] == [(3, n) for n in SMALL_PYRAMID.lengths]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a[:2], b)


def test_a_reconstruction_is_the_image_of_the_tokens(tokenizer, images):
    made = tokenizer.reconstruct(images)
    np.testing.assert_allclose(made.images, tokenizer.decode(made.tokens))
    assert 0 <= made.images.min() <= made.images.max() <= 1
    np.testing.assert_allclose(made.psnr, psnr(made.images, images))


def test_the_last_scale_completes_the_image(tokenizer, images):
    tokens = tokenizer.tokenize(images)
    steps = tokenizer.decode_each_scale(tokens)
    assert steps.shape == (SMALL_PYRAMID.num_scales, 3, SMALL_SIDE, SMALL_SIDE, 3)
    np.testing.assert_allclose(steps[-1], tokenizer.decode(tokens), atol=1e-5)
    assert (np.abs(steps[0] - steps[-1]) > 1e-3).any()


def test_psnr_is_20_db_at_a_tenth_of_the_range():
    black = np.zeros((2, 4, 4, 3))
    np.testing.assert_allclose(
        psnr(black + np.array([0.1, 0.0])[:, None, None, None], black)[0], 20
    )
    assert psnr(black, black)[1] == np.inf


def test_wrong_batches_are_refused(tokenizer, images):
    with pytest.raises(SdvarError, match="batch size must be positive"):
        ImageTokenizer(small_vqvae(), batch_size=0)
    with pytest.raises(SdvarError, match="2 token maps for 3 scales"):
        tokenizer.decode(tokenizer.tokenize(images)[:2])
    with pytest.raises(AssertionError):
        tokenizer.tokenize(images[:, :4])
