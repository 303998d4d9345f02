"""The README's table of decoders is what its command prints."""

from pathlib import Path

import pytest

from benchmarks.decoders_summary import main, summary
from benchmarks.results import Results
from sdvar_jax.errors import SdvarError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results/emoji"


def test_the_readme_shows_what_the_command_prints(capsys):
    main([str(RESULTS / "decoders.json"), str(RESULTS / "decoders_rest.json")])
    assert capsys.readouterr().out.strip() in (ROOT / "README.md").read_text(encoding="utf-8")


def run(memory, single=48):
    """A run whose rows need the memory given, in bytes."""
    estimate = {"value": 1.0, "deviation": 0.05, "low": 0.9, "high": 1.1}
    results = Results({"settings": {"batch": [1, 32], "single": single}}, quiet=True)
    for name, needed in memory.items():
        told = {"target_calls": 1, "seconds": 0.01, "speedup": 2.0, "memory_bytes": needed}
        results.add(
            "row",
            row=name,
            samples=2016,
            frechet_real=estimate,
            frechet_target=estimate,
            **{f"b{batch}_{key}": value for batch in (1, 32) for key, value in told.items()},
        )
    return results


def test_results_without_the_target_are_refused():
    with pytest.raises(SdvarError, match="no row `target`"):
        summary([run({"draft": 1})])


def test_a_row_is_compared_with_the_target_of_its_own_run():
    first = run({"target": 100, "draft": 150})
    second = run({"target": 1000, "draft": 1, "refine 1": 1200})
    lines = summary([first, second]).splitlines()
    shown = [line.split(" | ")[0].strip("| ") for line in lines[4:]]
    assert shown == ["target", "draft", "refine 1"]
    assert "+50 % / +50 %" in lines[5]
    assert "+20 % / +20 %" in lines[6]


def test_it_says_of_how_many_pictures_the_figures_are():
    first, *_ = summary([run({"target": 1})]).splitlines()
    assert first == "2,016 pictures a row (48 in the figures of batch 1)."


def test_runs_of_unlike_numbers_of_pictures_are_refused():
    with pytest.raises(SdvarError, match="unlike numbers of pictures"):
        summary([run({"target": 1}), run({"target": 1}, single=96)])


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "table.json"
    file.write_text("{}")
    with pytest.raises(SdvarError, match=r"no table\.json"):
        main([str(file)])
