"""The sampling settings that a checkpoint names."""

import json

import pytest

from sdvar_jax.checkpoint import read_info, save_checkpoint
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig


@pytest.fixture
def described(tmp_path, var):
    """A checkpoint whose ``sampling`` is what is given."""

    def with_sampling(value):
        directory = tmp_path / "c"
        save_checkpoint(directory, var=var, storage="safetensors", overwrite=directory.exists())
        path = directory / "checkpoint.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "sampling": value}))
        return directory

    return with_sampling


@pytest.mark.parametrize(
    "settings",
    [
        None,
        SamplingConfig(cfg=2.5, top_k=0, top_p=0.7),
        SamplingConfig(guidance_schedule="constant", guidance_until=1),
    ],
)
def test_they_come_back_as_they_were_saved(tmp_path, var, settings):
    made = save_checkpoint(tmp_path / "c", var=var, sampling=settings, storage="safetensors")
    assert made.sampling == settings
    assert read_info(tmp_path / "c") == made


def test_what_is_not_named_is_the_packages(described):
    directory = described({"cfg": 2, "top_p": 0.7})
    assert read_info(directory).sampling == SamplingConfig(cfg=2, top_p=0.7)
    assert read_info(described({})).sampling == SamplingConfig()


def test_a_checkpoint_of_an_earlier_version_has_none(described):
    path = described(None) / "checkpoint.json"
    data = json.loads(path.read_text())
    del data["sampling"]
    path.write_text(json.dumps(data))
    assert read_info(path.parent).sampling is None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([2.5], r"sampling must be an object, got \[2.5\]"),
        ({"topk": 1, "p": 1}, r"unknown fields \['p', 'topk'\]; use cfg, top_k, top_p"),
        ({"more_smooth": True}, "unknown fields"),
        ({"cfg": "2.5"}, "cfg must be a number, got '2.5'"),
        ({"cfg": True}, "cfg must be a number, got True"),
        ({"cfg": float("inf")}, "cfg must be a number, got inf"),
        ({"cfg": -1}, "cfg must not be negative, got -1"),
        ({"top_k": 2.5}, "top_k must be a whole number, got 2.5"),
        ({"top_p": 1.5}, r"top_p must lie in 0\.\.1"),
        ({"guidance_schedule": "cubic"}, "unknown guidance schedule 'cubic'"),
        ({"guidance_until": 99}, r"guidance_until must lie in 0\.\."),
    ],
)
def test_wrong_ones_are_told_in_one_line_that_names_the_file(described, value, message):
    with pytest.raises(SdvarError, match=rf"checkpoint\.json: .*{message}") as caught:
        read_info(described(value))
    assert "\n" not in str(caught.value)


def test_wrong_ones_are_not_saved(tmp_path, var):
    for settings in (SamplingConfig(more_smooth=True), SamplingConfig(guidance_until=99)):
        with pytest.raises(SdvarError):
            save_checkpoint(tmp_path / "c", var=var, sampling=settings)
    assert list(tmp_path.iterdir()) == []
