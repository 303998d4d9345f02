"""The residual quantizer against the original's, for every sharing of its convolutions."""

import jax.numpy as jnp
import numpy as np
import pytest
from agreement import assert_close, assert_same_tokens, margin
from golden_models import nhwc
from original_var import nchw, quietly, state_arrays, tensor

from convert.mapping import to_flax
from sdvar_jax.checkpoint.assembly import assemble
from sdvar_jax.config import PYRAMID_256, PYRAMID_512, VQVAEConfig
from sdvar_jax.models.resize import resize_area, resize_bicubic

pytestmark = pytest.mark.torch

PYRAMIDS = {"256": PYRAMID_256, "512": PYRAMID_512}
TOLERANCE = 2e-4
# Distances are about 10; this is what summing them in another order may change.
NEAR_TIE = 1e-4


@pytest.fixture(
    scope="module",
    params=[(name, shared) for name in PYRAMIDS for shared in (0, 1, 2, 4)],
    ids=lambda param: f"{param[0]}-shared{param[1]}",
)
def quantizers(request, original):
    """The original's quantizer and ours."""
    name, shared = request.param
    config = VQVAEConfig(
        pyramid=PYRAMIDS[name],
        vocab_size=64,
        latent_channels=8,
        channels=32,
        shared_convolutions=shared,
    )
    vqvae = original.filled(original.vqvae(config))
    ours = assemble(config, to_flax(state_arrays(vqvae), config))
    return vqvae.quantize, ours.quantizer


@pytest.mark.parametrize("name", PYRAMIDS)
def test_resizes(original, name):
    from torch.nn.functional import interpolate

    sides, latent = PYRAMIDS[name].sides, PYRAMIDS[name].latent_side
    for side in sides[:-1]:
        small = np.random.RandomState(side).standard_normal((2, side, side, 5)).astype(np.float32)
        large = np.random.RandomState(side).standard_normal((2, latent, latent, 5))
        large = large.astype(np.float32)
        up = interpolate(nchw(small), size=(latent, latent), mode="bicubic").numpy()
        down = interpolate(nchw(large), size=(side, side), mode="area").numpy()
        assert_close(f"{side} up", resize_bicubic(jnp.asarray(small), latent), nhwc(up), 1e-5)
        assert_close(f"{side} down", resize_area(jnp.asarray(large), side), nhwc(down), 1e-5)


def test_features_to_tokens_and_f_hat(quantizers):
    theirs, ours = quantizers
    config = ours.config
    side = config.pyramid.latent_side
    features = np.random.RandomState(0).standard_normal((2, side, side, 8)).astype(np.float32)
    with quietly():
        tokens, f_hats = (
            [x.numpy() for x in theirs.f_to_idxBl_or_fhat(nchw(features), to_fhat=to_fhat)]
            for to_fhat in (False, True)
        )
    codebook = np.asarray(ours.codebook[...], np.float64)
    margins = []
    for scale, length in enumerate(config.pyramid.lengths):
        rest = features if scale == 0 else features - nhwc(f_hats[scale - 1])
        seen = resize_area(jnp.asarray(rest), config.pyramid.sides[scale])
        seen = np.asarray(seen, np.float64).reshape(2, length, 1, 8)
        margins.append(margin(-np.sum((seen - codebook) ** 2, axis=-1)))
    got_tokens, got_f_hats = ours.tokenize(jnp.asarray(features))
    if assert_same_tokens("tokens", got_tokens, tokens, margins, NEAR_TIE):
        for scale, wanted in enumerate(f_hats):
            assert_close(f"f_hat {scale}", got_f_hats[scale], nhwc(wanted), TOLERANCE)


def test_tokens_to_f_hat_and_the_next_scales_input(quantizers):
    theirs, ours = quantizers
    pyramid = ours.config.pyramid
    random = np.random.RandomState(1)
    tokens = [random.randint(0, 64, (2, length)) for length in pyramid.lengths]
    got_f_hats = ours.f_hats(tuple(jnp.asarray(t, jnp.int32) for t in tokens))
    with quietly():
        f_hat = nchw(ours.initial_f_hat(2))
        for scale, side in enumerate(pyramid.sides):
            embedded = theirs.embedding(tensor(tokens[scale])).transpose(1, 2)
            f_hat, following = theirs.get_next_autoregressive_input(
                scale, pyramid.num_scales, f_hat, embedded.reshape(2, 8, side, side)
            )
            wanted = nhwc(f_hat.numpy())
            assert_close(f"f_hat {scale}", got_f_hats[scale], wanted, TOLERANCE)
            if scale + 1 < pyramid.num_scales:
                got = ours.scale_input(got_f_hats[scale], scale + 1)
                wanted = nhwc(following.numpy()).reshape(got.shape)
                assert_close(f"input {scale + 1}", got, wanted, TOLERANCE)
        wanted = theirs.idxBl_to_var_input([tensor(t) for t in tokens]).numpy()
    assert_close("inputs", ours.teacher_forcing_inputs(got_f_hats), wanted, TOLERANCE)
