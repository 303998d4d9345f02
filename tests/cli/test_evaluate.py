"""``sdvar evaluate``."""

import inspect
import json

import numpy as np
import pytest
from small_models import SMALL_SIDE

TWO = ("--batch-size", 2, "--quiet")


@pytest.fixture
def classifier(tmp_path, monkeypatch):
    """Stands in for the features, which need larger pictures than the small models make."""
    from sdvar_jax.evaluation import features as module
    from sdvar_jax.evaluation.features import FeaturesConfig

    class Extractor:
        class_names = ()
        config = FeaturesConfig(image_side=64)

        def __call__(self, images):
            images = np.asarray(images, np.float32) / 255
            means = images.reshape(len(images), -1, 3).mean(1)
            return means, np.zeros(len(images), np.int32)

    extractor = Extractor()
    object.__setattr__(extractor.config, "image_side", SMALL_SIDE)
    monkeypatch.setattr(module, "load_features", lambda path: extractor)
    return extractor


@pytest.fixture
def picture_folder(pair, tmp_path):
    """Real pictures, four of each class."""
    from sdvar_jax.imaging import save_png
    from sdvar_jax.loading import find_models

    random = np.random.default_rng(0)
    for name in find_models(pair).class_names:
        folder = tmp_path / "real" / name
        folder.mkdir(parents=True)
        for number in range(4):
            save_png(random.random((SMALL_SIDE, SMALL_SIDE, 3)), folder / f"{number}.png")
    return tmp_path / "real"


def test_pictures_of_each_class_are_written_in_shards(sdvar, pair, tmp_path):
    from sdvar_jax.evaluation import SampleDirectory

    done = sdvar("evaluate", "1", "3", "-n", 3, "-m", pair, *TWO, "--shard-batches", 2)
    assert (done.code, done.err) == (0, "")
    assert "wrote evaluation" in done.out
    samples = SampleDirectory.open(tmp_path / "evaluation")
    assert samples.complete
    assert samples.labels.tolist() == [1, 3, 1, 3, 1, 3]
    assert [len(shard.images) for shard in samples.shards()] == [4, 2]


def test_the_same_command_goes_on_and_another_is_refused(sdvar, pair, tmp_path):
    command = ("evaluate", "1", "-n", 4, "-m", pair, *TWO, "--shard-batches", 1)
    assert sdvar(*command).code == 0
    lost = tmp_path / "evaluation" / "shard-00001.npz"
    whole = lost.read_bytes()
    lost.unlink()
    assert sdvar(*command).code == 0
    with np.load(lost) as again:
        images = again["images"]
    lost.write_bytes(whole)
    with np.load(lost) as before:
        np.testing.assert_array_equal(before["images"], images)
    done = sdvar(*command, "--seed", 1)
    assert done.code == 2
    assert "other settings (seed)" in done.error


def test_any_decoder_of_sample_is_taken_with_its_statistics(sdvar, pair, tmp_path):
    speculative = ("--decoder", "speculative", "--gamma", 2, "--accept", "match")
    done = sdvar(
        *("evaluate", "1", "3", "-n", 1, "-m", pair, "--batch-size", 2, *speculative),
        *("--threshold", 0.3, "--stats", "s.json"),
    )
    assert (done.code, "target calls a batch" in done.out) == (0, True)
    report = json.loads((tmp_path / "s.json").read_text())
    assert report["settings"]["decoder"]["accept"]["name"] == "match"
    assert report["settings"]["threshold"] == 0.3
    assert report["statistics"]["samples"] == 2
    assert report["samples"] == 2
    assert set(report["seconds"]) >= {"load", "tokens", "images", "total"}


def test_it_takes_every_decoder_option_of_sample():
    from sdvar_jax.cli.decoders import DecoderOptions
    from sdvar_jax.cli.evaluate import evaluate
    from sdvar_jax.cli.sample import sample

    ours, theirs = (inspect.signature(command).parameters for command in (evaluate, sample))
    names = set(DecoderOptions.__dataclass_fields__) - {"trace"}
    assert names <= set(ours)
    assert all(ours[name].default == theirs[name].default for name in names)


def test_it_measures_against_real_pictures_and_other_samples(
    sdvar, pair, classifier, picture_folder, tmp_path
):
    command = ("evaluate", "-n", 2, "-m", pair, "--batch-size", 10)
    assert sdvar(*command, "--out", "other", "--seed", 7, "--quiet").code == 0
    done = sdvar(*command, "--data", picture_folder, "--against", "other", "--stats", "s.json")
    assert (done.code, done.err) == (0, ""), done.err
    assert "Frechet distance to real pictures (emoji features)" in done.out
    measures = json.loads((tmp_path / "s.json").read_text())["measures"]
    assert measures["real"]["frechet"]["value"] > measures["samples"]["frechet"]["value"] >= 0
    assert 0 <= measures["real"]["recall"]["value"] <= 1
    # The classifier's classes are not the model's.
    assert measures["real"]["accuracy"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--npz", "a.npz"), "256 px"),
        (("--features", "f"), "--data or --against"),
        (("--against", "none"), "no samples"),
        (("--fid-data", "none"), ""),
        (("--entry", 1), "--decoder handoff"),
        (("--kernels", "fused"), "the fused kernels need an NVIDIA GPU"),
        (("--data", "none", "--features", "none"), "no file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_loads(
    sdvar, pair, nothing_loads_or_compiles, options, said
):
    done = sdvar("evaluate", "1", "-m", pair, *options)
    assert done.code == 2
    assert said in done.error


def test_missing_or_foreign_real_pictures_are_refused_before_anything_loads(
    sdvar, pair, classifier, picture_folder, nothing_loads_or_compiles
):
    command = ("evaluate", "1", "-m", pair, "--data")
    assert "no image set" in sdvar(*command, "none").error
    (picture_folder / "apple").rename(picture_folder / "zebra")
    assert "no class zebra" in sdvar(*command, picture_folder).error
