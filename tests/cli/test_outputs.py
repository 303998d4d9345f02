"""Files of a run."""

import json

import pytest

from sdvar_jax.cli.outputs import single_name, write_json
from sdvar_jax.cli.terminal import in_bytes, in_seconds


@pytest.mark.parametrize(
    ("caption", "name"),
    [
        ("207 golden retriever", "0003-207-golden-retriever.png"),
        ("12 noto/Food & Drink", "0003-12-noto-food-drink.png"),
        ("crème brûlée", "0003-creme-brulee.png"),
        ("../../etc", "0003-etc.png"),
        ("猫", "0003-picture.png"),
    ],
)
def test_names_of_pictures_are_plain_and_stay_in_their_directory(caption, name):
    assert single_name(3, caption) == name


def test_json_is_short_and_loses_nothing(tmp_path):
    data = {"a": [1, 2, [3, 4]], "text": "[ 1,\n 2 ]", "nested": {"b": [None, True, 1.5]}}
    write_json(tmp_path / "s.json", data)
    text = (tmp_path / "s.json").read_text()
    assert json.loads(text) == data
    assert '"b": [ null, true, 1.5 ]' in text


def test_sizes_and_times_in_words():
    assert [in_bytes(n) for n in (None, 512, 1536, 3 * 2**30)] == [
        "unknown",
        "512 B",
        "1.5 KiB",
        "3.0 GiB",
    ]
    assert [in_seconds(t) for t in (0.0451, 9.5, 12.34)] == ["45 ms", "9,500 ms", "12.3 s"]
