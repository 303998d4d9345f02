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


def test_json_for_programs(sdvar, pair):
    told = json.loads(sdvar("info", pair, "--json").out)
    assert set(told["parts"]) == {"var", "vqvae", "draft"}
    assert told["class_names"][0] == "apple"


def test_classes_with_their_numbers(sdvar, pair):
    lines = sdvar("info", pair, "--classes").out.splitlines()
    assert len(lines) == 10
    assert lines[2].split(maxsplit=1) == ["2", "red fox, Vulpes vulpes"]


def test_no_checkpoint(sdvar, tmp_path):
    done = sdvar("info", tmp_path / "nothing")
    assert (done.code, "no checkpoint directory" in done.error) == (2, True)
