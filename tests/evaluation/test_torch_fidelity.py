"""What is asked of torch-fidelity, with a stand-in for it."""

import importlib
import types

import numpy as np
import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation import torch_fidelity as module
from sdvar_jax.evaluation.samples import SampleDirectory, Shard


@pytest.fixture
def samples(tmp_path):
    samples = SampleDirectory.start(tmp_path / "s", {}, np.arange(5), 2)
    for index in range(3):
        rows = samples.rows(index)
        images = np.zeros((rows.stop - rows.start, 8, 8, 3), np.uint8)
        images[..., 0] = np.arange(rows.start, rows.stop)[:, None, None]
        samples.write(index, Shard(rows.start, images, samples.labels[rows]))
    return samples


@pytest.fixture
def asked(monkeypatch):
    """Options that torch-fidelity was called with; torch and it are stand-ins."""
    options = {}

    def calculate_metrics(**given):
        options.update(given)
        if given["batch_size"] == 13:
            raise RuntimeError("no network\nmore")
        return {"inception_score_mean": np.float32(2.5)}

    stand_ins = {
        "torch": types.SimpleNamespace(
            cuda=types.SimpleNamespace(is_available=lambda: False), from_numpy=lambda array: array
        ),
        "torch.utils.data": types.SimpleNamespace(Dataset=object),
        "torch_fidelity": types.SimpleNamespace(calculate_metrics=calculate_metrics),
    }
    real = importlib.import_module
    monkeypatch.setattr(
        module.importlib,
        "import_module",
        lambda name: stand_ins[name] if name in stand_ins else real(name),
    )
    return options


def test_the_inception_score_alone_needs_no_reference(samples, asked):
    assert module.fidelity_metrics(samples) == {"inception_score_mean": 2.5}
    assert asked["isc"]
    assert not asked["fid"]
    assert "input2" not in asked


def test_fid_compares_with_a_directory_of_pictures(samples, asked, tmp_path):
    weights = tmp_path / "inception.pth"
    weights.touch()
    module.fidelity_metrics(samples, tmp_path, inception_weights=weights)
    assert asked["fid"]
    assert asked["input2"] == str(tmp_path)
    assert asked["feature_extractor_weights_path"] == str(weights)


def test_pictures_come_as_channels_first_in_order(samples, asked):
    module.fidelity_metrics(samples)
    pictures = asked["input1"]
    assert len(pictures) == 5
    assert [pictures[i].shape for i in range(5)] == [(3, 8, 8)] * 5
    assert [int(pictures[i][0, 0, 0]) for i in (0, 1, 2, 3, 4, 0)] == [0, 1, 2, 3, 4, 0]


def test_its_failure_is_told_in_one_line(samples, asked):
    with pytest.raises(SdvarError, match=r"could not measure: no network$"):
        module.fidelity_metrics(samples, batch_size=13)


def test_missing_files_are_told_before_anything_runs(samples, asked, tmp_path):
    with pytest.raises(SdvarError, match="no Inception weights"):
        module.fidelity_metrics(samples, inception_weights=tmp_path / "none.pth")
    with pytest.raises(SdvarError, match="no directory"):
        module.fidelity_metrics(samples, tmp_path / "none")
    samples.shard_path(1).unlink()
    with pytest.raises(SdvarError, match="not complete"):
        module.fidelity_metrics(samples)
    assert asked == {}


def test_without_it_the_extra_is_named(samples, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(module.importlib, "import_module", missing)
    with pytest.raises(SdvarError, match="extra 'fid'"):
        module.fidelity_metrics(samples)
