"""``sdvar info``."""

import json

import pytest
from small_models import SMALL_SIDE

pytestmark = pytest.mark.usefixtures("nothing_loads_or_compiles")


def test_it_tells_models_shapes_and_classes(sdvar, pair):
    done = sdvar("info", pair)
    assert (done.code, done.err) == (0, "")
    for told in (
        "depth 1, width 32, 2 heads",
        "1-2-3 (14 tokens)",
        f"{SMALL_SIDE}x{SMALL_SIDE} pixels",
        "draft",
        "apple",
    ):
        assert told in done.out


def test_the_settings_that_pictures_are_made_with_by_default(sdvar, pair, with_settings):
    assert "cfg 3, top-k all, top-p 0.75\n" in _unpadded(sdvar("info", with_settings).out)
    told = _unpadded(sdvar("info", pair).out)
    assert "cfg 1.5, top-k 900, top-p 0.96 (the package's settings)\n" in told
    assert json.loads(sdvar("info", with_settings, "--json").out)["sampling"]["cfg"] == 3.0


def _unpadded(text):
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def test_json_for_programs(sdvar, pair):
    told = json.loads(sdvar("info", pair, "--json").out)
    assert set(told["parts"]) == {"var", "vqvae", "draft"}
    assert told["class_names"][0] == "apple"


def test_classes_with_their_numbers(sdvar, pair):
    lines = sdvar("info", pair, "--classes").out.splitlines()
    assert len(lines) == 10
    assert lines[2].split(maxsplit=1) == ["2", "red fox, Vulpes vulpes"]


def test_weights_in_8_bits(sdvar, pair, in_8_bits):
    lines = sdvar("info", in_8_bits).out.splitlines()
    (stored,) = (line for line in lines if line.startswith("stored as"))
    assert stored.split(maxsplit=2)[2].rstrip() == "safetensors, format 2"
    (target,) = (line for line in lines if line.startswith("target"))
    assert ", int8, " in target
    parts, floats = (
        json.loads(sdvar("info", model, "--json").out)["parts"] for model in (in_8_bits, pair)
    )
    assert [part["dtype"] for part in parts.values()] == ["int8", "float32"]
    assert parts["var"]["size"] < floats["var"]["size"]
    assert parts["var"]["parameters"] == floats["var"]["parameters"]


def test_no_checkpoint(sdvar, tmp_path):
    done = sdvar("info", tmp_path / "nothing")
    assert (done.code, "no checkpoint directory" in done.error) == (2, True)
