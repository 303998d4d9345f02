"""What the commands that sample do before they sample."""

import pytest

from sdvar_jax.pipeline import Pipeline


@pytest.fixture
def compiled(monkeypatch):
    """Seconds that each call of ``Pipeline.sample`` spends compiling."""
    sample, seconds = Pipeline.sample, []

    def watched(*args, **kwargs):
        result = sample(*args, **kwargs)
        seconds.append(result.timings["compile"])
        return result

    monkeypatch.setattr(Pipeline, "sample", watched)
    return seconds


@pytest.mark.parametrize(
    "words",
    [
        ("--batch-size", 2),
        ("--batch-size", 16, "--cfg", 0),
        ("--decoder", "speculative", "--gamma", 1, "--threshold", 0.5, "--accept", "match"),
    ],
    ids=["several batches", "one", "speculative"],
)
def test_all_programs_of_a_sample_are_compiled_while_models_are_read(sdvar, pair, words, compiled):
    assert sdvar("sample", "1", "3", "5", "-m", pair, *words, "--quiet").code == 0
    assert compiled == [0.0]


def test_and_those_of_an_edit(sdvar, pair, picture, compiled):
    assert sdvar("edit", picture, "--box", "0,0,50%,100%", "-m", pair, "--quiet").code == 0
    assert compiled == [0.0]
