"""``sdvar train``."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from small_models import SMALL_SIDE, SMALL_VQVAE, small_draft, small_target, small_vqvae

from sdvar_jax.checkpoint import load_weights, read_info, save_checkpoint
from sdvar_jax.cli.train import distillation, preset_sampling, var_training, vqvae_training
from sdvar_jax.cli.training_options import Balance, ComputeDType, TrainingOptions
from sdvar_jax.config import PRESETS, ScalePyramid, VQVAEConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training import balance, presets


def options(**said):
    nothing = {
        "steps": 5,
        "minutes": None,
        "batch_size": None,
        "learning_rate": None,
        "weight_decay": None,
        "warmup": None,
        "seed": 0,
        "dtype": ComputeDType.AUTO,
        "logs": None,
        "resume": False,
        "checkpoint_every": 0,
        "evaluations": None,
        "pictures": None,
    }
    return TrainingOptions(**{**nothing, **said})


@pytest.fixture
def folder(tmp_path_factory):
    """Pictures of two classes, some of them held out."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (root / name).mkdir()
        for number in range(40):
            pixels = random.integers(0, 255, (SMALL_SIDE, SMALL_SIDE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_every_balance_is_offered():
    assert {str(choice) for choice in Balance} == set(balance.BALANCES)


class TestSettings:
    """A preset with what the user said on top."""

    def test_the_official_vqvae(self):
        config = vqvae_training("official", options(), {})
        assert config.model == VQVAEConfig()
        assert (config.run.steps, config.run.compute) == (5, "float32")

    def test_shapes_and_settings_that_were_said(self):
        said = {"pyramid": ScalePyramid((1, 2, 4)), "vocab_size": 64, "channels": None}
        config = vqvae_training(
            "emoji", options(learning_rate=0.1, batch_size=8), {**said, "channels": 32}, "class"
        )
        wanted = presets.EMOJI_VQVAE
        assert config.model.pyramid.sides == (1, 2, 4)
        assert config.model.shared_convolutions == 3
        assert config.model.channel_multipliers == wanted.channel_multipliers
        assert (config.optimizer.learning_rate, config.run.batch_size) == (0.1, 8)
        assert config.balance == "class"
        assert config.revival == presets.emoji_vqvae_training(1.0).revival

    def test_a_var_takes_scales_from_the_vqvae_and_classes_from_the_data(self):
        config = var_training("d16", options(), SMALL_VQVAE, 7, shape={"depth": None})
        wanted = PRESETS["d16"]
        assert (config.model.depth, config.model.width) == (wanted.depth, wanted.width)
        assert config.model.pyramid == SMALL_VQVAE.pyramid
        assert (config.model.vocab_size, config.model.num_classes) == (SMALL_VQVAE.vocab_size, 7)

    def test_a_depth_brings_width_and_heads_along(self):
        shape = {"depth": 3, "width": None, "heads": None}
        model = var_training("d16", options(), SMALL_VQVAE, 7, shape=shape).model
        assert (model.depth, model.width, model.heads) == (3, 192, 3)
        shape["width"] = 96
        model = var_training("d16", options(), SMALL_VQVAE, 7, shape=shape).model
        assert (model.depth, model.width, model.heads) == (3, 96, 3)

    def test_noise_that_was_not_said_stays_the_presets(self):
        def noise(**said):
            return var_training(
                "emoji-target", options(), presets.EMOJI_VQVAE, 7, shape={}, **said
            ).token_noise

        assert noise().own_share > 0
        assert noise(own_tokens=0.2) == dataclasses.replace(noise(), own_share=0.2)
        assert noise(token_noise=0.3) == dataclasses.replace(noise(), share=0.3)

    def test_a_model_to_go_on_from_keeps_its_shapes(self):
        start = PRESETS["d20"]
        config = var_training("d16", options(), SMALL_VQVAE, 7, shape={}, start=start)
        assert config.model == start
        with pytest.raises(SdvarError, match="--init takes the shapes"):
            var_training("d16", options(), SMALL_VQVAE, 7, shape={"depth": 2}, start=start)

    def test_a_distillation(self):
        config = distillation("emoji", options(minutes=2.0, steps=None), own_share=0.25)
        assert (config.own_share, config.run.minutes) == (0.25, 2.0)
        assert config.sampling == presets.EMOJI_SAMPLING
        assert config.cfg_range == presets.emoji_distillation(1.0).cfg_range

    def test_the_target_draws_with_the_settings_of_its_checkpoint(self):
        named = SamplingConfig(cfg=4.0)
        assert distillation("emoji", options(), sampling=named).sampling == named

    def test_a_preset_says_what_suits_its_models(self):
        assert preset_sampling("emoji-target") == presets.EMOJI_SAMPLING
        assert preset_sampling("d16") is None

    def test_pictures_are_drawn_only_where_they_can_be_written(self):
        emoji = presets.emoji_target_training(1.0, 7)
        assert emoji.run.pictures > 0
        assert options().run(emoji.run).pictures == 0
        assert options(logs=Path("x")).run(emoji.run).pictures == emoji.run.pictures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of --steps and --minutes"),
        (["--steps", "5", "--minutes", "1"], "one of --steps and --minutes"),
        (["--steps", "5", "--resume"], "--resume needs --logs"),
        (["--steps", "5", "--pictures", "2"], "--pictures needs --logs"),
        (["--steps", "5", "--checkpoint-every", "2"], "--checkpoint-every needs --logs"),
        (["--steps", "0"], "steps must be positive"),
        (["--steps", "5", "--preset", "huge"], "unknown preset 'huge'"),
        (["--steps", "5", "--pyramid", "1-x"], "--pyramid is whole numbers"),
        (["--steps", "5", "--pyramid", "2-4"], "first scale must be 1x1"),
        (["--steps", "5", "--channel-multipliers", "1;2"], "--channel-multipliers is whole"),
        (["--steps", "5", "--lr", "0"], "learning_rate must be positive"),
        (["--steps", "5"], "no image set"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(sdvar, tmp_path, words, message):
    done = sdvar("train", "vqvae", "missing.zip", "-o", "made", *words)
    assert (done.code, message in done.error) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_no_checkpoint_is_never_replaced(sdvar, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    done = sdvar("train", "vqvae", "x", "-o", "mine", "--steps", 1, "--overwrite")
    assert (done.code, "will not overwrite mine" in done.error) == (2, True)
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_distillation_needs_a_draft_to_start_from(sdvar, alone):
    done = sdvar("train", "distill", "x", "-o", "made", "-m", alone, "--steps", 1)
    assert (done.code, "holds no draft to start from" in done.error) == (2, True)


@pytest.mark.parametrize(
    ("named", "preset", "kept"),
    [
        (SamplingConfig(cfg=4.0), "emoji", SamplingConfig(cfg=4.0)),
        (None, "emoji", presets.EMOJI_SAMPLING),
        (None, "official", None),
    ],
)
def test_a_distillation_keeps_the_sampling_settings(
    sdvar, folder, tmp_path, monkeypatch, named, preset, kept
):
    models = {"var": small_target(), "vqvae": small_vqvae(), "draft": small_draft()}
    save_checkpoint(tmp_path / "pair", sampling=named, storage="safetensors", **models)
    used = []

    def distilled(train, vqvae, target, draft, config, **options):
        used.append(config.sampling)
        fit = SimpleNamespace(state=SimpleNamespace(step=1), seconds_per_step=1.0)
        return SimpleNamespace(model=draft, heldout={}, before={}, after={}, fit=fit)

    monkeypatch.setattr("sdvar_jax.training.distill", distilled)
    words = ("-m", "pair", "-o", "made", "--preset", preset, "--steps", 1, "--quiet")
    assert sdvar("train", "distill", folder, *words).code == 0
    assert used == [kept or SamplingConfig()]
    assert read_info(tmp_path / "made").sampling == kept


@pytest.mark.slow
def test_from_pictures_to_a_pair_that_samples(sdvar, folder, tmp_path):
    common = ("--steps", 4, "--batch-size", 8, "--quiet", "--debug")
    done = sdvar(
        *("train", "vqvae", folder, "-o", "vqvae", "--pyramid", "1-2-3", "--vocab-size", 32),
        *("--latent-channels", 8, "--channels", 32, "--channel-multipliers", "1,1"),
        *("--stats", "s.json", "--logs", "logs", *common),
    )
    assert (done.code, done.err) == (0, ""), done.err
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["steps"] == 4
    assert stats["heldout"]
    small = ("--width", 32, "--heads", 2, "--depth", 1)
    for name in ("target", "draft"):
        done = sdvar("train", "var", folder, "--vqvae", "vqvae", "-o", name, *small, *common)
        assert (done.code, done.err) == (0, ""), done.err
    done = sdvar(
        *("train", "distill", folder, "-m", "target", "--draft", "draft", "-o", "pair"),
        *("--own-samples", 8, "--measured", 8, *common),
    )
    assert (done.code, done.err) == (0, ""), done.err
    info = read_info(tmp_path / "pair")
    assert set(info.parts) == {"var", "vqvae", "draft"}
    assert info.class_names == ("cats", "dogs")
    for name, array in load_weights(tmp_path / "target", "var").arrays.items():
        kept = load_weights(tmp_path / "pair", "var").arrays[name]
        np.testing.assert_array_equal(array.read(), kept.read())
    done = sdvar("sample", "dogs", "-m", "pair", "-d", "speculative", "--quiet")
    assert (done.code, done.out) == (0, "wrote sdvar.png\n")
