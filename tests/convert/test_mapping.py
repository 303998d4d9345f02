"""The table covers every key of every official and golden model, one rule a key, both ways."""

import ml_dtypes
import numpy as np
import pytest
from golden_models import TINY_VARS, TINY_VQVAE
from golden_weights import MANIFESTS, fill, golden_manifest, official_manifest

from convert.mapping import (
    KEPT_BUFFERS,
    buffer_shapes,
    check_keys,
    is_derived,
    kind_of,
    match_flax_path,
    match_torch_key,
    parameter_shapes,
    to_flax,
    to_torch,
)
from sdvar_jax.checkpoint.assembly import abstract_arrays, flatten
from sdvar_jax.config import PYRAMID_512, ScalePyramid, VQVAEConfig, preset
from sdvar_jax.errors import SdvarError

OFFICIAL = {
    **{f"var_{size}": preset(size) for size in ("d16", "d20", "d24", "d30", "d36")},
    "vae_ch160v4096z32": VQVAEConfig(),
    "vae_ch160v4096z32_512": VQVAEConfig(pyramid=PYRAMID_512),
}


def test_every_official_manifest_is_covered_by_a_test():
    assert {path.stem for path in MANIFESTS.glob("*.json")} == set(OFFICIAL)


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_model_has_the_keys_and_shapes_of_its_manifest(name):
    config, manifest = OFFICIAL[name], official_manifest(name)
    assert parameter_shapes(config) | buffer_shapes(config) == manifest


@pytest.mark.parametrize("name", OFFICIAL)
def test_every_key_has_exactly_one_rule_and_every_parameter_one_key(name):
    config, manifest = OFFICIAL[name], official_manifest(name)
    kind = kind_of(config)
    paths = []
    for key in manifest:
        matches = match_torch_key(key, kind)
        is_buffer = is_derived(key, kind) or key in KEPT_BUFFERS[kind]
        assert len(matches) == (0 if is_buffer else 1), key
        for match in matches:
            assert match_flax_path(match.flax, config).torch == key
            paths.append(match.flax)
    assert sorted(paths) == sorted(abstract_arrays(config))


@pytest.mark.parametrize(
    ("shared", "key"),
    [
        (0, "quantize.quant_resi.2.weight"),
        (1, "quantize.quant_resi.qresi.weight"),
        (2, "quantize.quant_resi.qresi_ls.1.weight"),
        (4, "quantize.quant_resi.qresi_ls.3.weight"),
    ],
)
def test_the_quantizers_sharing_decides_the_names_of_its_convolutions(shared, key):
    config = VQVAEConfig(
        pyramid=ScalePyramid((1, 2, 3, 4)),
        vocab_size=64,
        latent_channels=8,
        channels=32,
        shared_convolutions=shared,
    )
    shapes = parameter_shapes(config)
    assert shapes[key] == (8, 8, 3, 3)
    weights = [k for k in shapes if k.startswith("quantize.quant_resi") and k.endswith("weight")]
    assert len(weights) == (shared or 4)


GOLDEN = {**TINY_VARS, "vqvae_tiny": TINY_VQVAE}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_state_dict_comes_back_bit_for_bit(name):
    state, config = fill(golden_manifest(name)), GOLDEN[name]
    kept = {key: state[key] for key in KEPT_BUFFERS[kind_of(config)]}
    back = to_torch(to_flax(state, config), config, kept)
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].dtype == value.dtype, key
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_bfloat16_passes_through_unchanged():
    config = TINY_VARS["var_tiny_d2_l2"]
    state = {
        key: value.astype(ml_dtypes.bfloat16) if value.dtype == np.float32 else value
        for key, value in fill(golden_manifest("var_tiny_d2_l2")).items()
    }
    params = flatten(to_flax(state, config))
    assert {array.dtype for array in params.values()} == {np.dtype(ml_dtypes.bfloat16)}
    np.testing.assert_array_equal(params["head_kernel"], state["head.weight"].T)


def test_layouts():
    config = TINY_VARS["var_tiny_d2_l2"]
    state = fill(golden_manifest("var_tiny_d2_l2"))
    params = flatten(to_flax(state, config))
    np.testing.assert_array_equal(
        params["blocks.1.attn.qkv_kernel"], state["blocks.1.attn.mat_qkv.weight"].T
    )
    np.testing.assert_array_equal(
        params["blocks.1.attn.scale_mul"], state["blocks.1.attn.scale_mul_1H11"][0, :, 0, 0]
    )
    np.testing.assert_array_equal(params["pos_embed"], state["pos_1LC"][0])
    state = fill(golden_manifest("vqvae_tiny"))
    kernel = flatten(to_flax(state, TINY_VQVAE))["encoder.conv_in.kernel"]
    assert kernel[2, 0, 1, 5] == state["encoder.conv_in.weight"][5, 1, 2, 0]


def test_everything_that_does_not_fit_is_named_in_one_message():
    shapes = golden_manifest("var_tiny_d2_l2")
    del shapes["head.bias"], shapes["blocks.1.ffn.fc1.weight"]
    shapes |= {"head.scale": (3,), "blocks.2.attn.q_bias": (128,), "pos_1LC": (1, 29, 128)}
    with pytest.raises(SdvarError) as caught:
        check_keys(shapes, TINY_VARS["var_tiny_d2_l2"])
    assert str(caught.value) == (
        "the weights do not fit the VAR model; "
        "2 missing: blocks.1.ffn.fc1.weight, head.bias; "
        "2 unexpected: head.scale, blocks.2.attn.q_bias; "
        "1 mis-shaped: pos_1LC [1, 29, 128] instead of [1, 30, 128]"
    )


def test_buffers_may_be_missing():
    shapes = golden_manifest("var_tiny_d2_l2")
    kept = {key: shape for key, shape in shapes.items() if not is_derived(key, "var")}
    assert len(kept) < len(shapes)
    check_keys(kept, TINY_VARS["var_tiny_d2_l2"])
