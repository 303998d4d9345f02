"""Sampling settings of a command line: what was said, else the checkpoint's, else the package's."""

import dataclasses
import json

import pytest

from sdvar_jax.cli.choices import GuidanceSchedule
from sdvar_jax.cli.sampling import SamplingOptions
from sdvar_jax.sampling import SamplingConfig

NAMED = SamplingConfig(cfg=3.0, top_k=0, top_p=0.75)
COMMANDS = {
    "sample": ("3",),
    "edit": ("{picture}", "--box", "25%,25%,75%,75%", "-n", "1"),
    "evaluate": ("3", "-n", "1"),
}


def test_what_was_said_replaces_the_default():
    assert SamplingOptions().build(NAMED) == NAMED
    said = SamplingOptions(
        cfg=0.0,
        top_k=5,
        top_p=0.0,
        more_smooth=True,
        guidance_schedule=GuidanceSchedule.CONSTANT,
        guidance_until=0,
    )
    assert said.build(NAMED) == SamplingConfig(0.0, 5, 0.0, True, "constant", 0)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_asks_the_checkpoint(sdvar, with_settings, picture, tmp_path, command):
    words = [word.format(picture=picture) for word in COMMANDS[command]]
    common = (command, *words, "-m", with_settings, "--quiet", "--stats", "s.json")
    assert sdvar(*common, "-o", "one").code == 0
    assert _sampling(tmp_path) == dataclasses.asdict(NAMED)
    assert sdvar(*common, "-o", "other", "--cfg", 1, "--top-k", 5).code == 0
    assert _sampling(tmp_path) == {**dataclasses.asdict(NAMED), "cfg": 1.0, "top_k": 5}


def _sampling(directory):
    return json.loads((directory / "s.json").read_text())["settings"]["sampling"]
