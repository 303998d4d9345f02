"""The classifier: its file, and that its features depend on the picture alone."""

import json

import jax
import numpy as np
import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation import features as module
from sdvar_jax.evaluation.features import (
    FeatureExtractor,
    FeaturesConfig,
    load_features,
    of_samples,
    save_features,
)
from sdvar_jax.evaluation.samples import SampleDirectory, Shard

NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def extractor(network):
    return FeatureExtractor(network, NAMES)


def test_a_picture_has_one_row_of_features_and_one_class(extractor, pictures):
    features, classes = extractor(pictures)
    assert features.shape == (5, 16)
    assert features.dtype == np.float32
    assert classes.shape == (5,)
    assert set(classes) <= {0, 1, 2}


def test_features_do_not_depend_on_the_other_pictures(extractor, pictures, monkeypatch):
    whole, _ = extractor(pictures)
    monkeypatch.setattr(module, "_CHUNK", 2)
    np.testing.assert_allclose(extractor(pictures)[0], whole, rtol=1e-5, atol=1e-6)


def test_floats_are_seen_as_the_bytes_that_a_file_would_hold(extractor, pictures):
    as_floats = (pictures + np.float32(0.9)).clip(0, 255).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(extractor(as_floats)[0], extractor(pictures)[0])


def test_what_is_written_is_read_back_with_its_names(extractor, network, pictures, tmp_path):
    weights, info = save_features(tmp_path / "features", network, NAMES, {"steps": 7})
    assert weights.name == "features.safetensors"
    assert json.loads(info.read_text())["class_names"] == list(NAMES)
    for path in (tmp_path, weights, info):
        read = load_features(path)
        assert read.class_names == NAMES
        assert read.about == {"steps": 7}
        assert read.config == network.config
    # Stored in half precision.
    np.testing.assert_allclose(read(pictures)[0], extractor(pictures)[0], atol=2e-2)


def test_features_of_samples_are_those_of_their_pictures(extractor, pictures, tmp_path):
    samples = SampleDirectory.start(tmp_path / "s", {}, np.array([0, 1, 2, 0, 1]), 3)
    for index in range(2):
        rows = samples.rows(index)
        samples.write(index, Shard(rows.start, pictures[rows], samples.labels[rows]))
    found = of_samples(extractor, samples)
    np.testing.assert_allclose(found.features, extractor(pictures)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.labels, samples.labels)


def test_gradients_reach_every_weight(network, pictures):
    from flax import nnx

    graphdef, weights = nnx.split(network)

    @jax.jit
    def gradients(weights, images):
        return jax.grad(lambda w: nnx.merge(graphdef, w)(images)[:, 0].sum())(weights)

    found = gradients(weights, pictures.astype(np.float32) / 255)
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(found))


def test_pictures_of_another_size_are_refused(extractor):
    with pytest.raises(SdvarError, match="8x8 pixels"):
        extractor(np.zeros((2, 16, 16, 3), np.uint8))


def test_a_missing_damaged_or_foreign_file_is_told(network, tmp_path):
    with pytest.raises(SdvarError, match="train them"):
        load_features(tmp_path)
    weights, info = save_features(tmp_path, network, NAMES, {})
    whole, described = weights.read_bytes(), info.read_text()
    weights.write_bytes(whole[:-10])
    with pytest.raises(SdvarError, match="truncated"):
        load_features(tmp_path)
    weights.write_bytes(whole)
    info.write_text(described.replace('"num_classes": 3', '"num_classes": 4'))
    with pytest.raises(SdvarError, match=r"does not fit.*head\.kernel"):
        load_features(tmp_path)
    info.write_text(described.replace('"version": 1', '"version": 2'))
    with pytest.raises(SdvarError, match="version"):
        load_features(tmp_path)
    info.write_text("{}")
    with pytest.raises(SdvarError, match="does not describe"):
        load_features(tmp_path)


@pytest.mark.parametrize(
    "options", [{"widths": (8,)}, {"widths": (8, 9)}, {"image_side": 20}, {"num_classes": 0}]
)
def test_shapes_that_cannot_be_are_refused(options):
    with pytest.raises(SdvarError):
        FeaturesConfig(**options)
