"""Samples on disk: what a killed run leaves, what is refused."""

import subprocess
import sys

import numpy as np
import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.samples import SampleDirectory, Shard

LABELS = np.arange(10) % 3
SETTINGS = {"seed": 0, "decoder": {"name": "target", "gamma": [1, 2]}}


def begin(path, settings=SETTINGS, labels=LABELS, shard_size=4):
    return SampleDirectory.start(path, settings, labels, shard_size)


def shard(samples, index):
    rows = samples.rows(index)
    images = np.full((rows.stop - rows.start, 8, 8, 3), index, np.uint8)
    return Shard(
        rows.start, images, samples.labels[rows], {"samples": len(images)}, {"tokens": 1.0}
    )


def fill(samples, indices):
    for index in indices:
        samples.write(index, shard(samples, index))


def test_shards_hold_all_pictures_in_order_and_the_last_the_rest(tmp_path):
    samples = begin(tmp_path / "s")
    assert samples.missing() == [0, 1, 2]
    fill(samples, [0, 1, 2])
    assert samples.complete
    read = list(SampleDirectory.open(tmp_path / "s").shards())
    assert [len(each.images) for each in read] == [4, 4, 2]
    assert [each.first for each in read] == [0, 4, 8]
    np.testing.assert_array_equal(np.concatenate([each.labels for each in read]), LABELS)
    assert read[0].images.dtype == np.uint8
    assert read[2].statistics == {"samples": 2}
    assert read[2].seconds == {"tokens": 1.0}


def test_a_run_goes_on_with_what_is_missing(tmp_path):
    fill(begin(tmp_path / "s"), [0, 2])
    assert begin(tmp_path / "s").missing() == [1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": {**SETTINGS, "seed": 1}}, "seed"),
        (
            {"settings": {**SETTINGS, "decoder": {"name": "target", "gamma": [1, 3]}}},
            "decoder.gamma",
        ),
        ({"labels": np.arange(10) % 2}, "labels"),
        ({"labels": np.arange(9) % 3}, "samples"),
        ({"shard_size": 5}, "shard_size"),
    ],
)
def test_samples_of_other_settings_are_refused_by_name(tmp_path, change, named):
    begin(tmp_path / "s")
    with pytest.raises(SdvarError, match=f"other settings .*{named}"):
        begin(tmp_path / "s", **change)


def test_a_directory_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(SdvarError, match="holds no samples"):
        begin(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_what_a_killed_run_was_writing_is_removed(tmp_path):
    fill(begin(tmp_path / "s"), [0])
    partial = tmp_path / "s" / ".shard-00001.abc.partial.npz"
    partial.write_bytes(b"half")
    assert begin(tmp_path / "s").missing() == [1, 2]
    assert not partial.exists()


_ENDLESS_RUN = """
import sys
import numpy as np
from sdvar_jax.evaluation.samples import SampleDirectory, Shard
samples = SampleDirectory.start(sys.argv[1], {}, np.zeros(2000, int), 2)
for index in samples.missing():
    images = np.random.default_rng(index).integers(0, 256, (2, 64, 64, 3), np.uint8)
    samples.write(index, Shard(2 * index, images, np.zeros(2, np.int32)))
    print(index, flush=True)
"""


def test_a_run_that_is_killed_leaves_whole_shards_alone(tmp_path):
    path = tmp_path / "s"
    run = subprocess.Popen([sys.executable, "-c", _ENDLESS_RUN, path], stdout=subprocess.PIPE)
    for _ in range(3):
        run.stdout.readline()
    run.kill()
    run.communicate()
    samples = SampleDirectory.open(path)
    made = sorted(set(range(1000)) - set(samples.missing()))
    assert made == list(range(len(made)))
    assert 3 <= len(made) < 1000
    for index in made:
        wanted = np.random.default_rng(index).integers(0, 256, (2, 64, 64, 3), np.uint8)
        np.testing.assert_array_equal(samples.read(index).images, wanted)


def test_reading_what_is_not_complete_says_how_to_complete_it(tmp_path):
    samples = begin(tmp_path / "s")
    fill(samples, [0])
    with pytest.raises(SdvarError, match=r"not complete.*shard-00001"):
        list(samples.shards())


def test_a_damaged_or_exchanged_shard_is_told(tmp_path):
    samples = begin(tmp_path / "s")
    fill(samples, [0, 1, 2])
    samples.shard_path(0).write_bytes(samples.shard_path(0).read_bytes()[:200])
    with pytest.raises(SdvarError, match="damaged"):
        samples.read(0)
    samples.shard_path(1).write_bytes(samples.shard_path(2).read_bytes())
    with pytest.raises(SdvarError, match="other pictures"):
        samples.read(1)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "sdvar-samples", "version": 99}', "[]"])
def test_a_damaged_description_is_told(tmp_path, text):
    begin(tmp_path / "s")
    (tmp_path / "s" / "settings.json").write_text(text)
    with pytest.raises(SdvarError, match=r"settings\.json"):
        SampleDirectory.open(tmp_path / "s")


def test_no_samples_at_all_are_told(tmp_path):
    with pytest.raises(SdvarError, match="no samples"):
        SampleDirectory.open(tmp_path)
