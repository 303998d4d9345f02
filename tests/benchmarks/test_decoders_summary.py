"""The README's table of decoders is what its command prints."""

from pathlib import Path

import pytest

from benchmarks.decoders_summary import main, summary
from sdvar_jax.errors import SdvarError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results/emoji"


def test_the_readme_shows_what_the_command_prints(capsys):
    main([str(RESULTS / "decoders.json"), str(RESULTS / "decoders_rest.json")])
    assert capsys.readouterr().out.strip() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_results_without_the_target_are_refused():
    with pytest.raises(SdvarError, match="no row `target`"):
        summary([[{"kind": "row", "row": "draft"}]])


def test_a_row_is_compared_with_the_target_of_its_own_run():
    def record(name, memory):
        estimate = {"value": 1.0, "deviation": 0.05, "low": 0.9, "high": 1.1}
        told = {"target_calls": 1, "seconds": 0.01, "speedup": 2.0, "memory_bytes": memory}
        return {
            "kind": "row",
            "row": name,
            "frechet_real": estimate,
            "frechet_target": estimate,
            **{f"b{batch}_{key}": value for batch in (1, 32) for key, value in told.items()},
        }

    first = [record("target", 100), record("draft", 150)]
    second = [record("target", 1000), record("draft", 1), record("refine 1", 1200)]
    lines = summary([first, second]).splitlines()
    shown = [line.split(" | ")[0].strip("| ") for line in lines[2:]]
    assert shown == ["target", "draft", "refine 1"]
    assert "+50 % / +50 %" in lines[3]
    assert "+20 % / +20 %" in lines[4]


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "table.json"
    file.write_text("{}")
    with pytest.raises(SdvarError, match=r"no table\.json"):
        main([str(file)])
