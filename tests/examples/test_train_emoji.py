"""``examples/train_emoji.py``: how its models are stored, and what the command line changes."""

import dataclasses
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import small_target, small_vqvae

from sdvar_jax.checkpoint import load_weights, read_info, save_checkpoint
from sdvar_jax.errors import SdvarError
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


def test_the_report_is_a_text_file_with_an_end_of_its_last_line(tmp_path, program):
    report = {"stages": {"target": {"minutes": 1.5}}}
    program["write_report"](report, tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text) == report
    assert text.endswith("}\n")


class TestSettings:
    """What the command line makes of the presets of the stages."""

    @pytest.fixture
    def said(self, program, monkeypatch):
        """Reads a command line."""

        def read(*words):
            line = ["train_emoji.py", "--data", "d", "--output", "o", *map(str, words)]
            monkeypatch.setattr(sys, "argv", line)
            return program["arguments"]()

        return read

    @pytest.fixture(params=[emoji_target_training, emoji_draft_training])
    def preset(self, request):
        return request.param(1.0, 36)

    def test_without_a_word_presets_stand(self, program, said, preset):
        assert program["adjusted_var"](preset, said()) == preset
        for config in (emoji_vqvae_training(1.0), emoji_distillation(1.0)):
            assert program["adjusted"](config, said()) == config

    def test_own_tokens_change_their_own_share_alone(self, program, said, preset):
        for share in (0.0, 0.4):
            config = program["adjusted_var"](preset, said("--own-tokens", share))
            noise = dataclasses.replace(preset.token_noise, own_share=share)
            assert config == dataclasses.replace(preset, token_noise=noise)

    def test_scale_power_is_that_of_target_draft_and_distillation(self, program, said, preset):
        for power in (0.0, 0.75):
            args = said("--scale-power", power)
            config = program["adjusted_var"](preset, args)
            assert config == dataclasses.replace(preset, scale_power=power)
            distillation, vqvae = emoji_distillation(1.0), emoji_vqvae_training(1.0)
            config = program["adjusted"](distillation, args)
            assert config == dataclasses.replace(distillation, scale_power=power)
            assert program["adjusted"](vqvae, args) == vqvae

    def test_learning_rate_scales_and_run_are_taken_together(self, program, said, preset):
        args = said("--learning-rate", 2e-3, "--scales", 8, "--steps", 7, "--batch-size", 16)
        config = program["adjusted_var"](preset, args)
        optimizer = dataclasses.replace(preset.optimizer, learning_rate=2e-3)
        run = dataclasses.replace(preset.run, steps=7, minutes=None, batch_size=16)
        assert config == dataclasses.replace(preset, optimizer=optimizer, scales=8, run=run)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--own-tokens", 1.5), r"own_share must lie in 0\.\.1"),
            (("--scale-power", -1), r"scale_power must lie in 0\.\.1"),
            (("--scales", 11), r"scales must lie in 2\.\.10"),
        ],
    )
    def test_what_is_out_of_range_is_refused(self, program, said, preset, words, message):
        with pytest.raises(SdvarError, match=message):
            program["adjusted_var"](preset, said(*words))
