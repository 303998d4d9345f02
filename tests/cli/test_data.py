"""``sdvar data``."""

import pytest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "4"], "picture size must be 8 to"),
        (["--heldout-fraction", "1"], "held-out fraction"),
        (["--archive", "missing.tgz"], "missing.tgz"),
        (["-o", "no/set.zip"], "does not exist"),
    ],
)
def test_bad_input_leaves_nothing(sdvar, tmp_path, words, message):
    done = sdvar("data", "emoji", *words)
    assert (done.code, message in done.error) == (2, True)
    assert list(tmp_path.iterdir()) == []
