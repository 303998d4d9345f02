"""The README's table of decoders is what its command prints."""

from pathlib import Path

import pytest

from benchmarks.decoders_summary import main, summary
from sdvar_jax.errors import SdvarError

ROOT = Path(__file__).parents[2]


def test_the_readme_shows_what_the_command_prints(capsys):
    main([str(ROOT / "docs/results/emoji/decoders.json")])
    assert capsys.readouterr().out.strip() in (ROOT / "README.md").read_text(encoding="utf-8")


def test_results_without_the_target_are_refused():
    with pytest.raises(SdvarError, match="no row `target`"):
        summary([{"kind": "row", "row": "draft"}])


def test_other_files_are_refused(tmp_path):
    file = tmp_path / "table.json"
    file.write_text("{}")
    with pytest.raises(SdvarError, match=r"no table\.json"):
        main([str(file)])
