"""The configuration follows from the tensors."""

import dataclasses

import numpy as np
import pytest
from golden_models import HANDOFF_VQVAE, TINY_VARS, TINY_VQVAE, handoff_var
from golden_weights import fill, golden_manifest, official_manifest

from convert.configure import (
    Overrides,
    infer_var_config,
    infer_vqvae_config,
    parse_pyramid,
)
from convert.mapping import buffer_shapes, parameter_shapes
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.config import PYRAMID_256, PYRAMID_512, ScalePyramid, VQVAEConfig, preset
from sdvar_jax.errors import SdvarError


def shapes_only(manifest):
    """A state dict without values, but for the scales of the positions."""

    def never():
        raise AssertionError("only shapes are needed")

    state = {key: LazyArray(shape, np.dtype(np.float32), never) for key, shape in manifest.items()}
    if "lvl_1L" in manifest:
        length = manifest["lvl_1L"][1]
        (pyramid,) = (
            p
            for p in (PYRAMID_256, PYRAMID_512, ScalePyramid((1, 2, 3, 4)))
            if p.total_length == length
        )
        levels = np.repeat(np.arange(pyramid.num_scales), pyramid.lengths)[None]
        state["lvl_1L"] = LazyArray.of(levels)
    return state


@pytest.mark.parametrize("size", ["d16", "d20", "d24", "d30", "d36"])
def test_an_official_var_is_its_preset(size):
    assert infer_var_config(shapes_only(official_manifest(f"var_{size}"))) == preset(size)


@pytest.mark.parametrize("size", ["d16", "d36"])
def test_the_position_table_tells_the_pyramid_where_lvl_1l_is_missing(size):
    manifest = official_manifest(f"var_{size}")
    del manifest["lvl_1L"], manifest["attn_bias_for_masking"]
    assert infer_var_config(shapes_only(manifest)) == preset(size)


@pytest.mark.parametrize("name", TINY_VARS)
def test_a_golden_var(name):
    config = infer_var_config(shapes_only(golden_manifest(name)))
    assert config == dataclasses.replace(TINY_VARS[name], drop_path_rate=config.drop_path_rate)


def test_draft_and_target_of_unlike_width():
    for part, expected in (("draft", handoff_var(2, 64, 2)), ("target", handoff_var(3, 96, 3))):
        config = infer_var_config(shapes_only(golden_manifest("handoff", part)))
        assert dataclasses.replace(config, drop_path_rate=0.0) == expected


def test_the_official_vqvae():
    state = shapes_only(official_manifest("vae_ch160v4096z32"))
    assert infer_vqvae_config(state) == VQVAEConfig()
    with_var = infer_vqvae_config(state, pyramid=PYRAMID_512)
    assert with_var == VQVAEConfig(pyramid=PYRAMID_512)


def test_golden_vqvaes():
    state = shapes_only(golden_manifest("handoff", "vae"))
    assert infer_vqvae_config(state) == HANDOFF_VQVAE
    state = shapes_only(golden_manifest("vqvae_tiny"))
    assert infer_vqvae_config(state, pyramid=TINY_VQVAE.pyramid) == TINY_VQVAE


@pytest.mark.parametrize(
    "options",
    [
        {"shared_convolutions": 0},
        {"shared_convolutions": 1},
        {"shared_convolutions": 2},
        {"attention": False},
        {"mid_attention": False},
        {"channels": 64, "channel_multipliers": (1, 3, 2), "residual_blocks": 1},
    ],
    ids=str,
)
def test_every_form_of_vqvae_is_recognised(options):
    config = dataclasses.replace(TINY_VQVAE, **options)
    state = shapes_only(parameter_shapes(config) | buffer_shapes(config))
    assert infer_vqvae_config(state, pyramid=config.pyramid) == config


def test_the_residual_ratio_is_not_in_the_tensors():
    state = shapes_only(golden_manifest("vqvae_tiny"))
    overrides = Overrides(residual_ratio=0.25, pyramid=TINY_VQVAE.pyramid)
    assert infer_vqvae_config(state, overrides).residual_ratio == 0.25


class TestHeadsWithoutNormalisation:
    def test_are_64_channels_wide_unless_told(self):
        state = shapes_only(golden_manifest("var_tiny_d2_nol2"))
        assert infer_var_config(state).heads == 2
        assert infer_var_config(state, Overrides(heads=8)).heads == 8

    def test_must_be_told_for_an_odd_width(self):
        manifest = golden_manifest("var_tiny_d2_nol2")
        narrow = {
            key: tuple({128: 96, 384: 288, 512: 384, 768: 576}.get(n, n) for n in shape)
            for key, shape in manifest.items()
        }
        with pytest.raises(SdvarError, match="give --heads"):
            infer_var_config(shapes_only(narrow))

    def test_cannot_be_changed_where_the_weights_tell_them(self):
        state = shapes_only(golden_manifest("var_tiny_d2_l2"))
        with pytest.raises(SdvarError, match="8 heads were asked for, but the weights have 2"):
            infer_var_config(state, Overrides(heads=8))


class TestPyramid:
    def test_asked_for_and_told_must_agree(self):
        state = shapes_only(golden_manifest("var_tiny_d2_l2"))
        with pytest.raises(SdvarError, match=r"lvl_1L says 1-2-3-4"):
            infer_var_config(state, Overrides(pyramid=PYRAMID_256))

    def test_must_be_told_where_no_official_one_fits(self):
        manifest = golden_manifest("var_tiny_d2_l2")
        del manifest["lvl_1L"]
        with pytest.raises(SdvarError, match="give --pyramid"):
            infer_var_config(shapes_only(manifest))
        pyramid = ScalePyramid((1, 2, 3, 4))
        told = infer_var_config(shapes_only(manifest), Overrides(pyramid=pyramid))
        assert told.pyramid == pyramid

    @pytest.mark.parametrize(
        ("levels", "complaint"),
        [
            ([0, 1, 1, 2, 2, 2, 2], "not square"),
            ([0, 2, 2, 2, 2], "does not number the scales"),
            ([0, 1, 1, 0, 1, 1], "does not number the scales"),
            ([0.0, 1.0], "no list of scales"),
        ],
    )
    def test_that_is_none_is_refused(self, levels, complaint):
        state = shapes_only(golden_manifest("var_tiny_d2_l2"))
        state["lvl_1L"] = LazyArray.of(np.asarray([levels]))
        with pytest.raises(SdvarError, match=complaint):
            infer_var_config(state)

    @pytest.mark.parametrize(
        ("text", "sides"),
        [
            ("256", PYRAMID_256.sides),
            ("512", PYRAMID_512.sides),
            ("1-2-3-4", (1, 2, 3, 4)),
            ("1,2, 5", (1, 2, 5)),
        ],
    )
    def test_is_read_from_text(self, text, sides):
        assert parse_pyramid(text).sides == sides

    @pytest.mark.parametrize("text", ["", "big", "1-x", "2-1", "-1"])
    def test_text_that_is_none_is_refused(self, text):
        with pytest.raises(SdvarError):
            parse_pyramid(text)

    def test_of_a_vqvae_alone_must_be_told_unless_it_has_ten_scales(self):
        state = {
            key: LazyArray.of(value)
            for key, value in fill(
                {
                    "quantize.ema_vocab_hit_SV": (4, 64),
                }
            ).items()
        } | {
            key: array
            for key, array in shapes_only(golden_manifest("vqvae_tiny")).items()
            if key != "quantize.ema_vocab_hit_SV"
        }
        with pytest.raises(SdvarError, match="pyramid of 4 scales"):
            infer_vqvae_config(state)


def test_one_wrong_tensor_does_not_bend_the_configuration():
    manifest = golden_manifest("var_tiny_d2_l2")
    manifest["class_emb.weight"] = (11, 100)
    manifest["blocks.0.attn.q_bias"] = (7,)
    del manifest["head.weight"]
    config = infer_var_config(shapes_only(manifest))
    expected = TINY_VARS["var_tiny_d2_l2"]
    assert dataclasses.replace(config, drop_path_rate=expected.drop_path_rate) == expected
