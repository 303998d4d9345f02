"""Handoff reproduces the published decoder at every stored entry and mask."""

import functools

import jax
import numpy as np
import pytest
from decoding_models import PYRAMID, QUICK_COMPILE, decode, tiny_models, tiny_request
from golden_models import HANDOFF_VQVAE, golden, golden_model, handoff_var

from sdvar_jax.config import PYRAMID_256
from sdvar_jax.decoding import (
    DecodingModels,
    DraftOnly,
    ForcedTokens,
    Handoff,
    TargetOnly,
    TokenSampling,
    make_request,
)
from sdvar_jax.decoding import handoff as handoff_module
from sdvar_jax.decoding.handoff import MASKS, ORDERS, entry_mask
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
# The decoder's two steps, compiled one by one: the cases differ in the order they take them and in
# masks, which are arguments, so each serves many cases.
STEPS = {
    "decode_scale": jax.jit(
        handoff_module.decode_scale,
        static_argnames=("scale", "sampling"),
        compiler_options=QUICK_COMPILE,
    ),
    "forward_window": jax.jit(
        handoff_module.forward_window,
        static_argnames=("window", "sampling", "logits_of"),
        compiler_options=QUICK_COMPILE,
    ),
    "after_scale": jax.jit(
        handoff_module.after_scale,
        static_argnames=("scale", "sampling"),
        compiler_options=QUICK_COMPILE,
    ),
}


@functools.cache
def golden_models():
    return DecodingModels(
        target=golden_model("handoff", handoff_var(3, 96, 3), "target"),
        draft=golden_model("handoff", handoff_var(2, 64, 2), "draft"),
        quantizer=golden_model("handoff", HANDOFF_VQVAE, "vae").quantizer,
    )


def golden_run(entry, mask):
    """Tokens, and the guided logits of each scale."""
    caught = []

    def catching(step):
        def run_step(*args, **kwargs):
            made = step(*args, **kwargs)
            caught.append(made[0])
            return made

        return run_step

    request = make_request(np.array([1, 7]), 0, CONFIG, PYRAMID_256)
    with pytest.MonkeyPatch.context() as patch:
        for name, step in STEPS.items():
            makes_logits = name != "after_scale"
            patch.setattr(handoff_module, name, catching(step) if makes_logits else step)
        decoder = Handoff(entry, "draft-target", mask)
        decoded = decoder.decode(golden_models(), request, TokenSampling.of(CONFIG, 10))
    return np.asarray(decoded.tokens), caught


@pytest.mark.parametrize(("entry", "mask"), CASES)
def test_golden(entry, mask):
    arrays, prefix = golden("handoff"), f"entry{entry}_mask{mask}"
    tokens, logits = golden_run(entry, mask)
    assert [each.shape[1] for each in logits] == list(PYRAMID_256.lengths)
    wanted = arrays[f"{prefix}_entry_logits"]
    scale = min(entry, 9)
    np.testing.assert_allclose(logits[scale], wanted, atol=TOLERANCE, rtol=0)
    # A near tie may fall either way; everything before the first one must be equal.
    agree = tokens == arrays[f"{prefix}_tokens"]
    for scale in range(10):
        place = PYRAMID_256.window(scale, scale + 1)
        if agree[:, place].all():
            continue
        top_two = np.sort(np.asarray(logits[scale]), axis=-1)[..., -2:]
        margins = (top_two[..., 1] - top_two[..., 0])[~agree[:, place]]
        assert margins.max() < 2 * TOLERANCE, f"scale {scale} differs beyond a tie"
        break


def test_every_published_mask_is_among_the_golden_runs():
    assert {mask for _, mask in CASES} == set(MASKS)


def test_mask_3_is_the_block_causal_one():
    np.testing.assert_array_equal(
        entry_mask(PYRAMID_256, 4, 3), block_causal_mask(PYRAMID_256, 0, 5)
    )


@pytest.mark.parametrize("mask", [number for number in MASKS if number != 0])
def test_every_query_sees_itself(mask):
    assert np.diagonal(entry_mask(PYRAMID_256, 3, mask)).all()


SCALES = PYRAMID.num_scales


@pytest.mark.parametrize("order", ORDERS)
def test_at_its_ends_it_is_one_model_alone(order):
    models, request = tiny_models(), tiny_request((0, 3, 1), 2)
    first, second = (TargetOnly(), DraftOnly())
    if order == "draft-target":
        first, second = second, first
    for entry, alone in ((0, second), (SCALES, first)):
        made = decode(Handoff(entry, order), models, request)
        wanted = decode(alone, models, request)
        np.testing.assert_array_equal(made.tokens, wanted.tokens)
        np.testing.assert_allclose(made.f_hats, wanted.f_hats, atol=1e-5)


@pytest.mark.parametrize("order", ORDERS)
def test_the_second_model_goes_on_as_if_it_had_made_the_scales_before(order):
    """Given from outside, the first model's scales lead the second alone to the same picture."""
    models, request = tiny_models(), tiny_request((0, 3, 1), 2)
    made = decode(Handoff(1, order), models, request)
    forced = np.zeros(made.tokens.shape, bool)
    forced[:, :1] = True
    given = request.replace(forced=ForcedTokens(tokens=made.tokens, forced=forced))
    second = DraftOnly() if order == "target-draft" else TargetOnly()
    np.testing.assert_array_equal(made.tokens, decode(second, models, given).tokens)


def test_a_draft_that_is_the_target_changes_nothing():
    models, request = tiny_models(0.0), tiny_request((0, 3, 1), 2)
    made = decode(Handoff(1), models, request)
    np.testing.assert_array_equal(made.tokens, decode(TargetOnly(), models, request).tokens)


@pytest.mark.parametrize("entry", [-1, 11])
def test_entry_outside_the_pyramid_is_refused(entry):
    with pytest.raises(SdvarError, match=r"entry must lie in 0\.\.10"):
        Handoff(entry).validate(handoff_var(3, 96, 3), TokenSampling.of(CONFIG, 10))


def test_unknown_mask_and_order_are_refused():
    with pytest.raises(SdvarError, match="unknown mask 6"):
        Handoff(1, mask=6)
    with pytest.raises(SdvarError, match="unknown order"):
        Handoff(1, order="target")
