"""Batches for training: a fixed endless order that can be shared, stopped and resumed."""

import itertools
import json
import sys

import numpy as np
import pytest

from sdvar_jax.data import ImageDataset, LoaderConfig, make_loader, to_signed
from sdvar_jax.errors import SdvarError


@pytest.fixture(params=[True, False], ids=["in memory", "compressed"])
def source(request, encoded):
    return ImageDataset(encoded, "all", in_memory=request.param)


def numbers(batch):
    """Which pictures of the fixture a batch holds."""
    return np.rint((batch["image"][:, 1, 0, 0] + 1) * 127.5 / 10).astype(int).tolist()


def take(loader, count):
    return list(itertools.islice(loader, count))


def test_batches_are_float32_between_minus_one_and_one_with_int32_labels(source):
    batch = next(make_loader(source, LoaderConfig(4)))
    assert batch["image"].shape == (4, 8, 8, 3)
    assert batch["image"].dtype == np.float32
    assert (batch["image"][:, 0, 0] == 1).all()
    assert batch["label"].dtype == np.int32
    assert batch["label"].tolist() == [n % 3 for n in numbers(batch)]


def test_the_signed_range_is_met_exactly():
    signed = to_signed(np.array([0, 255], np.uint8))
    np.testing.assert_array_equal(signed, np.array([-1, 1], np.float32))


def test_every_epoch_holds_every_picture_once_in_an_order_of_its_own(source):
    seen = [n for b in take(make_loader(source, LoaderConfig(4)), 10) for n in numbers(b)]
    epochs = [seen[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_seed_decides_the_order(source):
    def order(seed):
        return [numbers(b) for b in take(make_loader(source, LoaderConfig(5, seed=seed)), 4)]

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_the_number_of_threads_does_not(source):
    one, many = (
        [numbers(b) for b in take(make_loader(source, LoaderConfig(3, threads=t)), 8)]
        for t in (1, 4)
    )
    assert one == many


@pytest.mark.parametrize("flip", [False, True])
def test_a_resumed_iterator_goes_on_exactly(source, flip):
    config = LoaderConfig(4, seed=3, flip=flip)
    loader = make_loader(source, config)
    take(loader, 7)
    state = json.loads(json.dumps(loader.get_state()))
    expected = take(loader, 5)
    resumed = make_loader(source, config)
    resumed.set_state(state)
    for a, b in zip(expected, take(resumed, 5), strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_processes_share_each_batch_without_overlap(source):
    config = LoaderConfig(6, seed=5, flip=True)
    whole = take(make_loader(source, config), 5)
    shares = [
        take(make_loader(source, config, process_index=i, process_count=3), 5) for i in range(3)
    ]
    for step in range(5):
        joined = np.concatenate([share[step]["image"] for share in shares])
        np.testing.assert_array_equal(joined, whole[step]["image"])


def test_a_batch_may_be_larger_than_the_data_set(source):
    batch = next(make_loader(source, LoaderConfig(25)))
    counts = np.bincount(numbers(batch), minlength=10)
    assert counts.sum() == 25
    assert set(counts.tolist()) == {2, 3}


def test_one_pass_in_order_ends_with_a_smaller_batch(source):
    loader = make_loader(source, LoaderConfig(4, shuffle=False, epochs=1))
    assert [numbers(b) for b in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_flipping_mirrors_about_half_of_the_pictures_and_only_left_to_right(source):
    plain = take(make_loader(source, LoaderConfig(10, seed=2)), 10)
    flipped = take(make_loader(source, LoaderConfig(10, seed=2, flip=True)), 10)
    mirrored = 0
    for a, b in zip(plain, flipped, strict=True):
        assert numbers(a) == numbers(b)
        for one, other in zip(a["image"], b["image"], strict=True):
            if not np.array_equal(one, other) or (one == 1).all():
                np.testing.assert_array_equal(one[:, ::-1], other)
                mirrored += 1
    assert 30 <= mirrored <= 70


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 4, "threads": 0}, "threads"),
        ({"batch_size": 4, "prefetch": 0}, "prefetch"),
        ({"batch_size": 4, "seed": -1}, "seed"),
        ({"batch_size": 4, "epochs": 0}, "epochs"),
    ],
)
def test_bad_configurations_are_refused(options, message):
    with pytest.raises(SdvarError, match=message):
        LoaderConfig(**options)


def test_a_batch_that_cannot_be_shared_is_refused(source):
    with pytest.raises(SdvarError, match="cannot be shared among 3"):
        make_loader(source, LoaderConfig(4), process_index=0, process_count=3)


def test_without_grain_the_extra_is_named(source, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(SdvarError, match=r"sdvar-jax\[train\]"):
        make_loader(source, LoaderConfig(4))
