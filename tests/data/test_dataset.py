"""Prepared image sets, read back."""

import dataclasses
import zipfile

import numpy as np
import pytest

from sdvar_jax.data import ImageDataset, ImageSource, load_dataset
from sdvar_jax.data.container import decode_image, encode_image, read_images, write_images
from sdvar_jax.errors import SdvarError


@pytest.fixture
def path(encoded, tmp_path):
    write_images(tmp_path / "set.bin", encoded)
    return tmp_path / "set.bin"


def test_compression_loses_nothing():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    np.testing.assert_array_equal(decode_image(encode_image(pixels)), pixels)


@pytest.mark.parametrize("in_memory", [False, True])
def test_examples_are_uint8_pictures_with_int32_labels(path, in_memory):
    dataset = load_dataset(path, "all", in_memory=in_memory)
    assert len(dataset) == 10
    for index in (0, 4, 9):
        example = dataset[index]
        assert example["image"].dtype == np.uint8
        assert example["image"].shape == (8, 8, 3)
        assert (example["image"][1:] == 10 * index).all()
        assert example["label"].dtype == np.int32
        assert example["label"] == index % 3
    assert dataset.class_names == ("a", "b", "c")
    assert isinstance(dataset, ImageSource)


def test_decoding_ahead_changes_nothing_but_the_time(path):
    lazy, eager = load_dataset(path), load_dataset(path, in_memory=True)
    assert lazy.images is None
    assert eager.images.shape == (7, 8, 8, 3)
    rows = np.array([5, 0, 5, 2])
    for a, b in zip(lazy.gather(rows), eager.gather(rows), strict=True):
        np.testing.assert_array_equal(a, b)


def test_splits_part_the_set(path):
    train, heldout = load_dataset(path), load_dataset(path, "heldout")
    assert train.names == tuple(f"name-{i}" for i in range(7))
    assert heldout.names == ("name-7", "name-8", "name-9")
    assert (heldout[1]["image"][1:] == 80).all()


def test_a_picture_handed_out_may_be_changed(path):
    dataset = load_dataset(path, in_memory=True)
    dataset[3]["image"][:] = 0
    assert (dataset[3]["image"][1:] == 30).all()


def test_an_index_outside_is_an_index_error(path):
    with pytest.raises(IndexError):
        load_dataset(path)[7]


def test_everything_written_is_read_back(path, encoded):
    again = read_images(path)
    for name in ("size", "class_names", "glyphs", "names", "payload", "credits"):
        assert getattr(again, name) == getattr(encoded, name), name
    for name in ("labels", "heldout", "offsets"):
        np.testing.assert_array_equal(getattr(again, name), getattr(encoded, name))


def rewritten(path, changes):
    """The set with members replaced (None removes one)."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members, **changes}.items():
            if data is not None:
                archive.writestr(name, data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "no image set at"),
        (lambda p: p.write_bytes(b"x"), "cannot read the image set"),
        (lambda p: p.write_bytes(p.read_bytes()[:-300]), "cannot read the image set"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"WEBP", b"WEBQ")), "cannot read"),
        (lambda p: rewritten(p, {"labels.npy": None}), "cannot read the image set"),
        (lambda p: rewritten(p, {"images.bin": b"short"}), "do not belong together"),
        (lambda p: rewritten(p, {"meta.json": b'{"format": "other"}'}), "unknown format"),
        (
            lambda p: rewritten(p, {"meta.json": b'{"format": "sdvar-images", "version": 9}'}),
            "version 9",
        ),
    ],
)
def test_a_damaged_file_is_one_clear_line(path, damage, message):
    damage(path)
    with pytest.raises(SdvarError, match=message) as caught:
        load_dataset(path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_given_is_refused(path):
    with pytest.raises(SdvarError, match="no split 'test'"):
        load_dataset(path, "test")
    with pytest.raises(SdvarError, match="pictures of 8 px, not 16"):
        load_dataset(path, size=16)


def test_a_damaged_picture_is_named(encoded):
    broken = dataclasses.replace(encoded, payload=bytes(len(encoded.payload)))
    with pytest.raises(SdvarError, match="picture name-0 of the image set is damaged"):
        ImageDataset(broken, in_memory=True)
