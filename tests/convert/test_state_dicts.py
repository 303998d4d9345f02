"""State dicts are found in whatever they are wrapped."""

from pathlib import Path

import numpy as np
import pytest

from convert.state_dicts import find_state_dicts
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.errors import SdvarError

FILE = Path("weights.pth")


def under(prefix, state):
    return {f"{prefix}{key}": LazyArray.of(value) for key, value in state.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "trainer.var_wo_ddp.",
        "trainer.var_wo_ddp._orig_mod.module.",
        "state_dict.model.",
    ],
)
def test_prefixes_are_taken_off(prefix, var_state):
    found = find_state_dicts(under(prefix, var_state), FILE)
    assert list(found.state_dicts) == ["var"]
    assert list(found.state_dicts["var"]) == list(var_state)
    assert found.ignored == ()


def test_wrappers_inside_of_a_name_are_taken_off(var_state):
    arrays = {
        key.replace(".attn.", "._orig_mod.attn."): value
        for key, value in under("", var_state).items()
    }
    assert list(find_state_dicts(arrays, FILE).state_dicts["var"]) == list(var_state)


@pytest.mark.parametrize(
    ("var_prefix", "vqvae_prefix"),
    [("var.", "vae."), ("trainer.var_wo_ddp.", "trainer.vae_local."), ("", "vae."), ("", "")],
)
def test_both_models_in_one_file(var_prefix, vqvae_prefix, var_state, vqvae_state):
    arrays = under(var_prefix, var_state) | under(vqvae_prefix, vqvae_state)
    found = find_state_dicts(arrays, FILE)
    assert found.state_dicts["var"].keys() == var_state.keys()
    assert found.state_dicts["vqvae"].keys() == vqvae_state.keys()


def test_an_optimizers_tensors_are_left_out_and_told(var_state):
    arrays = under("trainer.var_wo_ddp.", var_state)
    arrays["trainer.var_opt.state.0.exp_avg"] = LazyArray.of(np.zeros(3))
    found = find_state_dicts(arrays, FILE)
    assert found.state_dicts["var"].keys() == var_state.keys()
    assert found.ignored == ("trainer.var_opt.state.0.exp_avg",)


def test_unknown_keys_of_a_model_stay_with_it_to_be_refused(var_state):
    arrays = under("var.", var_state) | under("var.", {"lora.down": np.zeros(3)})
    assert "lora.down" in find_state_dicts(arrays, FILE).state_dicts["var"]


def test_another_model_is_refused():
    arrays = under("", {f"layer{i}.conv.weight": np.zeros(3) for i in range(20)})
    arrays |= under("", {"head.weight": np.zeros((2, 2)), "head.bias": np.zeros(2)})
    with pytest.raises(SdvarError, match="neither a VAR nor a VQVAE: its 22 keys"):
        find_state_dicts(arrays, FILE)


def test_two_of_a_kind_need_a_choice(var_state):
    arrays = under("model.", var_state) | under("ema.", var_state)
    with pytest.raises(SdvarError, match="more than one VAR, under 'ema' and 'model'"):
        find_state_dicts(arrays, FILE)
    chosen = find_state_dicts(arrays, FILE, prefix="ema")
    assert chosen.state_dicts["var"].keys() == var_state.keys()
    with pytest.raises(SdvarError, match="holds nothing below 'emma'"):
        find_state_dicts(arrays, FILE, prefix="emma")


def test_a_key_with_and_without_a_wrapper_is_refused(var_state):
    arrays = under("", var_state) | under("module.", {"head.bias": np.zeros(64)})
    with pytest.raises(SdvarError, match=r"holds head\.bias twice"):
        find_state_dicts(arrays, FILE)
