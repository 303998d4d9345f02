"""Results: complete at any time, and readable."""

import json
from pathlib import Path

import pytest

from benchmarks.break_even import break_even
from benchmarks.results import Results, markdown_table, shown, told


def test_the_file_is_complete_after_every_result(tmp_path):
    path = tmp_path / "results.json"
    results = Results({"device": "a device"}, path, quiet=True)
    assert json.loads(path.read_text()) == {"context": {"device": "a device"}, "records": []}
    for seconds in (0.5, 0.25):
        results.add("decoder", case="target", seconds=seconds)
        assert json.loads(path.read_text())["records"] == results.records
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_the_last_line_of_the_file_has_an_end(tmp_path):
    Results({}, tmp_path / "results.json", quiet=True)
    assert (tmp_path / "results.json").read_text().endswith("}\n")


RECORDS = Path(__file__).parents[2] / "docs/results"


@pytest.mark.parametrize(
    "name", sorted(str(p.relative_to(RECORDS)) for p in RECORDS.rglob("*.json"))
)
def test_the_records_of_the_docs_are_json_whose_last_line_has_an_end(name):
    text = (RECORDS / name).read_text(encoding="utf-8")
    assert isinstance(json.loads(text), dict)
    assert text.endswith("}\n")


def test_prints_a_line_a_result(capsys):
    Results({}).add("decoder", case="target", seconds=0.0123, seconds_low=0.01, scales=[1, 2])
    assert capsys.readouterr().out == "decoder: case=target seconds=12.300 ms\n"


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("seconds", 0.0015, "1.500 ms"),
        ("compile_seconds", 12.34, "12.34 s"),
        ("program_bytes", 3 * 2**30, "3.00 GiB"),
        ("speedup", 1.23456, "1.235"),
        ("acceptance", None, "-"),
        ("batch", 32, "32"),
    ],
)
def test_shows_values_in_readable_units(key, value, text):
    assert shown(key, value) == text


def test_a_line_leaves_out_what_belongs_in_the_file_alone():
    assert told({"kind": "floor", "batch": 1, "scales": [0.1]}) == "floor: batch=1"


def test_a_table_has_the_columns_that_any_row_fills():
    rows = [{"a": 1, "b": None}, {"a": 2, "c": "x"}]
    assert markdown_table(rows, {"a": "A", "b": "B", "c": "C"}) == (
        "| A | C |\n| --- | --- |\n| 1 | - |\n| 2 | x |"
    )


def test_break_even_is_interpolated_from_above():
    points = [(0.0, 3.0), (0.5, 2.0), (1.0, 1.0)]
    assert break_even(points, 1.5) == pytest.approx(0.75)
    assert break_even(points[::-1], 2.5) == pytest.approx(0.25)


def test_break_even_at_the_ends():
    points = [(0.0, 3.0), (1.0, 1.0)]
    assert break_even(points, 4.0) == 0.0
    assert break_even(points, 0.5) is None
    assert break_even([], 1.0) is None


def test_break_even_ignores_a_dip_below_a_slower_point():
    assert break_even([(0.0, 0.9), (0.5, 2.0), (1.0, 0.5)], 1.0) == pytest.approx(5 / 6)
