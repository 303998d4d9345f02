"""``examples/train_emoji.py``: how its models are stored."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from small_models import small_target, small_vqvae

from sdvar_jax.checkpoint import load_weights, read_info, save_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_emoji.py"


@pytest.fixture(scope="module")
def program():
    return runpy.run_path(str(EXAMPLE))


@pytest.mark.parametrize("store", ["bfloat16", "int8"])
def test_what_is_read_back_is_stored_as_it_was(tmp_path, program, store):
    one, two = tmp_path / "one", tmp_path / "two"
    var, vqvae = (program["stored"](model, store) for model in (small_target(), small_vqvae()))
    save_checkpoint(one, var=var, vqvae=vqvae, storage="safetensors")
    told = {name: part.dtype for name, part in read_info(one).parts.items()}
    assert told == {"var": store, "vqvae": "bfloat16"}

    target = program["load"](one, "bfloat16")["target"]
    assert (target.dtypes.param, target.dtypes.compute) == ("float32", "bfloat16")
    save_checkpoint(two, var=program["stored"](target, store), storage="safetensors")
    assert read_info(two).parts["var"] == read_info(one).parts["var"]
    first, second = (load_weights(path, "var").stored_arrays() for path in (one, two))
    for name, array in first.items():
        if name.endswith("kernel.scale"):  # the last bit may differ
            np.testing.assert_array_max_ulp(second[name].read(), array.read(), 1)
        else:
            np.testing.assert_array_equal(second[name].read(), array.read())
