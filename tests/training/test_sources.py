"""Where batches come from."""

import itertools
import json

import jax
import numpy as np
import pytest

from sdvar_jax.data import LoaderConfig, make_loader
from sdvar_jax.training.sharding import data_mesh
from sdvar_jax.training.sources import LoaderSource, ResidentSource


def draw(source, mesh, seed):
    return source.batch(source.resident(mesh), None, jax.random.key(seed))


def test_pictures_come_as_often_as_their_weights_say(one_device):
    weights = np.array([4.0, 1.0, 0.0, 3.0])
    source = ResidentSource({"image": np.arange(4)}, 64, weights)
    drawn = np.concatenate([draw(source, one_device, seed)["image"] for seed in range(10)])
    counts = np.bincount(drawn, minlength=4) / 10
    np.testing.assert_allclose(counts, 64 * weights / 8, atol=1.0)


def test_arrays_stay_together(one_device):
    arrays = {"image": np.arange(10) * 100, "label": np.arange(10)}
    batch = draw(ResidentSource(arrays, 8), one_device, 0)
    np.testing.assert_array_equal(batch["image"], batch["label"] * 100)


def test_a_draw_is_fixed_by_its_key(one_device):
    source = ResidentSource({"image": np.arange(100)}, 16)
    same = [draw(source, one_device, seed)["image"] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert (np.asarray(same[0]) != np.asarray(same[2])).any()


@pytest.mark.parametrize("weights", [np.zeros(3), np.array([1.0, -1.0, 1.0]), np.ones(2)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="one weight a picture"):
        ResidentSource({"image": np.arange(3)}, 2, weights)


def test_a_loader_gives_its_batches_in_order_split_over_the_devices(pictures):
    config = LoaderConfig(8, seed=3)
    wanted = list(itertools.islice(make_loader(pictures, config), 3))
    mesh = data_mesh()
    fetched = LoaderSource(make_loader(pictures, config)).fetch(3, mesh)
    assert fetched["image"].shape == (3, 8, 8, 8, 3)
    assert len(fetched["image"].sharding.device_set) == len(jax.devices())
    for i, batch in enumerate(wanted):
        np.testing.assert_array_equal(fetched["label"][i], batch["label"])


def test_a_loader_goes_on_where_it_stood(pictures, one_device):
    config = LoaderConfig(8, seed=3)
    source = LoaderSource(make_loader(pictures, config))
    source.fetch(2, one_device)
    state = json.loads(json.dumps(source.get_state()))
    wanted = source.fetch(2, one_device)
    again = LoaderSource(make_loader(pictures, config))
    again.set_state(state)
    np.testing.assert_array_equal(again.fetch(2, one_device)["image"], wanted["image"])
