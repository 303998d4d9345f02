"""The file for the OpenAI evaluator."""

import numpy as np
import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.adm_npz import write_adm_npz
from sdvar_jax.evaluation.samples import SampleDirectory, Shard


def sampled(path, labels, side=256, shards=None):
    samples = SampleDirectory.start(path, {}, np.asarray(labels), 2)
    for index in range(samples.num_shards if shards is None else shards):
        rows = samples.rows(index)
        images = np.random.default_rng(index).integers(
            0, 256, (rows.stop - rows.start, side, side, 3), np.uint8
        )
        samples.write(index, Shard(rows.start, images, samples.labels[rows]))
    return samples


def test_its_first_array_is_uint8_pictures_of_256_px_and_its_second_the_labels(tmp_path):
    samples = sampled(tmp_path / "s", [0, 1, 2])
    write_adm_npz(samples, tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["arr_0", "arr_1"]
        assert arrays["arr_0"].shape == (3, 256, 256, 3)
        assert arrays["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(
            arrays["arr_0"], np.concatenate([shard.images for shard in samples.shards()])
        )
        assert arrays["arr_1"].tolist() == [0, 1, 2]


def test_equal_samples_are_equal_bytes(tmp_path):
    samples = sampled(tmp_path / "s", [0, 1, 2], side=8)
    for name in ("a.npz", "b.npz"):
        write_adm_npz(samples, tmp_path / name, side=8)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_pictures_of_another_size_are_refused_unless_asked_for(tmp_path):
    samples = sampled(tmp_path / "s", [0, 1], side=8)
    with pytest.raises(SdvarError, match="256x256"):
        write_adm_npz(samples, tmp_path / "a.npz")
    write_adm_npz(samples, tmp_path / "a.npz", side=None)
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["arr_0"].shape == (2, 8, 8, 3)


def test_unbalanced_classes_are_refused_unless_asked_for(tmp_path):
    samples = sampled(tmp_path / "s", [0, 1, 1], side=8)
    with pytest.raises(SdvarError, match="balanced: 1 to 2 a class"):
        write_adm_npz(samples, tmp_path / "a.npz", side=8)
    write_adm_npz(samples, tmp_path / "a.npz", side=8, balanced=False)


def test_samples_that_are_not_complete_leave_no_file(tmp_path):
    samples = sampled(tmp_path / "s", [0, 1, 2, 3], side=8, shards=1)
    with pytest.raises(SdvarError, match="1 of 2 shards are missing"):
        write_adm_npz(samples, tmp_path / "a.npz", side=8)
    assert not (tmp_path / "a.npz").exists()
