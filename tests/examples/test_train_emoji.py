"""``examples/train_emoji.py``: its settings, and how its models are stored."""

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import small_target, small_vqvae

from sdvar_jax.checkpoint import load_weights, read_info, save_checkpoint
from sdvar_jax.training.presets import (
    emoji_distillation,
    emoji_draft_training,
    emoji_target_training,
    emoji_vqvae_training,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_emoji.py"


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def arguments(program, monkeypatch):
    def parse(*options):
        required = ["train_emoji.py", "--data", "set", "--output", "out"]
        monkeypatch.setattr(sys, "argv", [*required, *options])
        return program["arguments"]()

    return parse


def presets():
    return {
        "vqvae": emoji_vqvae_training(1.0),
        "target": emoji_target_training(1.0, 36),
        "draft": emoji_draft_training(1.0, 36),
        "distill": emoji_distillation(1.0),
    }


@pytest.mark.parametrize("stage", presets())
def test_without_options_the_presets_stand(program, arguments, stage):
    assert program["adjusted"](presets()[stage], arguments()) == presets()[stage]


@pytest.mark.parametrize("stage", ["target", "draft", "distill"])
def test_scales_are_weighed_as_asked_in_every_loss_over_them(program, arguments, stage):
    made = program["adjusted"](presets()[stage], arguments("--scale-power", "0"))
    assert made == dataclasses.replace(presets()[stage], scale_power=0.0)


def test_own_tokens_scales_and_rate_are_those_of_target_and_draft(program, arguments):
    options = arguments("--own-tokens", "0.3", "--scales", "8", "--learning-rate", "0.01")
    for stage in ("target", "draft"):
        before, made = presets()[stage], program["adjusted"](presets()[stage], options)
        assert made.token_noise == dataclasses.replace(before.token_noise, own_share=0.3)
        assert made.optimizer == dataclasses.replace(before.optimizer, learning_rate=0.01)
        assert (before.scales, made.scales) == (None, 8)
    for stage in ("vqvae", "distill"):
        assert program["adjusted"](presets()[stage], options) == presets()[stage]


@pytest.mark.parametrize("store", ["bfloat16", "int8"])
def test_what_is_read_back_is_stored_as_it_was(tmp_path, program, store):
    one, two = tmp_path / "one", tmp_path / "two"
    var, vqvae = (program["stored"](model, store) for model in (small_target(), small_vqvae()))
    save_checkpoint(one, var=var, vqvae=vqvae, storage="safetensors")
    told = {name: part.dtype for name, part in read_info(one).parts.items()}
    assert told == {"var": store, "vqvae": "bfloat16"}

    target = program["load"](one, "bfloat16")["target"]
    assert (target.dtypes.param, target.dtypes.compute) == ("float32", "bfloat16")
    save_checkpoint(two, var=program["stored"](target, store), storage="safetensors")
    assert read_info(two).parts["var"] == read_info(one).parts["var"]
    first, second = (load_weights(path, "var").stored_arrays() for path in (one, two))
    for name, array in first.items():
        if name.endswith("kernel.scale"):  # the last bit may differ
            np.testing.assert_array_max_ulp(second[name].read(), array.read(), 1)
        else:
            np.testing.assert_array_equal(second[name].read(), array.read())
