"""The pair that comes with the package."""

import dataclasses

from sdvar_jax.checkpoint import read_info, resolve_model
from sdvar_jax.config import PYRAMID_256
from sdvar_jax.training.presets import (
    EMOJI_SAMPLING,
    EMOJI_VQVAE,
    emoji_draft,
    emoji_target,
)

DIRECTORY = resolve_model("emoji")


def test_it_is_the_one_that_the_presets_make():
    info = read_info(DIRECTORY)
    classes = len(info.class_names)
    assert classes == 36
    assert info.var_config == emoji_target(classes)
    assert info.draft_config == emoji_draft(classes)
    assert info.vqvae_config == EMOJI_VQVAE
    assert info.sampling == EMOJI_SAMPLING
    assert info.var_config.pyramid == PYRAMID_256


def test_it_holds_at_most_32_megabytes():
    sizes = [file.stat().st_size for file in DIRECTORY.rglob("*") if file.is_file()]
    assert 10e6 < sum(sizes) <= 32e6


def test_the_target_costs_several_times_the_draft():
    info = read_info(DIRECTORY)
    parameters = {name: dataclasses.asdict(part)["parameters"] for name, part in info.parts.items()}
    assert parameters["var"] > 4 * parameters["draft"]
