"""Every example explains itself."""

from pathlib import Path

import pytest

EXAMPLES = sorted(path.stem for path in (Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_help(example, name):
    code, out, err = example(name, "--help")
    assert (code, err) == (0, "")
    assert "usage:" in out
    assert "--" in out
