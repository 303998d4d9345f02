"""Handoff reproduces the published decoder at every stored entry and mask."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx
from golden_models import HANDOFF_VQVAE, golden, golden_model, handoff_var

from sdvar_jax.config import PYRAMID_256
from sdvar_jax.decoding import DecodingModels, Handoff, TokenSampling, make_request
from sdvar_jax.decoding import window as window_module
from sdvar_jax.decoding.handoff import MASKS, entry_mask
from sdvar_jax.errors import SdvarError
from sdvar_jax.models.var import block_causal_mask
from sdvar_jax.sampling import SamplingConfig

TOLERANCE = 2e-4
CONFIG = SamplingConfig(cfg=1.5, top_k=1, top_p=0.0)
CASES = sorted(
    tuple(int(part) for part in key.removesuffix("_tokens").removeprefix("entry").split("_mask"))
    for key in golden("handoff")
    if key.endswith("_tokens")
)


@pytest.fixture(scope="module")
def models():
    draft = golden_model("handoff", handoff_var(2, 64, 2), "draft")
    target = golden_model("handoff", handoff_var(3, 96, 3), "target")
    vqvae = golden_model("handoff", HANDOFF_VQVAE, "vae")
    return tuple(zip(*(nnx.split(m) for m in (target, draft, vqvae)), strict=True))


@functools.partial(jax.jit, static_argnames=("graphs", "decoder"))
def decode(graphs, states, request, decoder):
    """Tokens, and the guided logits of each scale, caught where tokens are drawn."""
    target, draft, vqvae = (nnx.merge(g, s) for g, s in zip(graphs, states, strict=True))
    models = DecodingModels(target=target, quantizer=vqvae.quantizer, draft=draft)
    caught = {}
    original = window_module.filtered

    def catching(logits, request, sampling):
        caught[len(caught)] = logits
        return original(logits, request, sampling)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_module, "filtered", catching)
        decoded = decoder.decode(models, request, TokenSampling.of(CONFIG, 10))
    return decoded.tokens, caught


@pytest.mark.parametrize(("entry", "mask"), CASES)
def test_golden(models, entry, mask):
    arrays, prefix = golden("handoff"), f"entry{entry}_mask{mask}"
    request = make_request(np.array([1, 7]), 0, CONFIG, PYRAMID_256)
    tokens, logits = decode(*models, request, Handoff(entry, "draft-target", mask))
    wanted = arrays[f"{prefix}_entry_logits"]
    scale = min(entry, 9)
    np.testing.assert_allclose(logits[scale], wanted, atol=TOLERANCE, rtol=0)
    # A near tie may fall either way; everything before the first one must be equal.
    agree = np.asarray(tokens) == arrays[f"{prefix}_tokens"]
    for scale in range(10):
        place = PYRAMID_256.window(scale, scale + 1)
        if agree[:, place].all():
            continue
        top_two = np.sort(np.asarray(logits[scale]), axis=-1)[..., -2:]
        margins = (top_two[..., 1] - top_two[..., 0])[~agree[:, place]]
        assert margins.max() < 2 * TOLERANCE, f"scale {scale} differs beyond a tie"
        break


def test_mask_3_is_the_block_causal_one():
    np.testing.assert_array_equal(
        entry_mask(PYRAMID_256, 4, 3), block_causal_mask(PYRAMID_256, 0, 5)
    )


@pytest.mark.parametrize("mask", [number for number in MASKS if number != 0])
def test_every_query_sees_itself(mask):
    assert np.diagonal(entry_mask(PYRAMID_256, 3, mask)).all()


@pytest.mark.parametrize("entry", [-1, 11])
def test_entry_outside_the_pyramid_is_refused(entry):
    with pytest.raises(SdvarError, match=r"entry must lie in 0\.\.10"):
        Handoff(entry).validate(handoff_var(3, 96, 3), TokenSampling.of(CONFIG, 10))


def test_unknown_mask_and_order_are_refused():
    with pytest.raises(SdvarError, match="unknown mask 6"):
        Handoff(1, mask=6)
    with pytest.raises(SdvarError, match="unknown order"):
        Handoff(1, order="target")
