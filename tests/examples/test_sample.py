"""``examples/sample.py``."""

import json

import numpy as np
from PIL import Image

from sdvar_jax.loading import load_pipeline
from sdvar_jax.sampling import SamplingConfig


def test_it_samples_with_the_settings_of_the_checkpoint(example, pair, tmp_path):
    words = ("3", "4", "--model", pair, "--seed", 2, "--tokens", "t.npz", "--stats", "s.json")
    code, out, err = example("sample", *words)
    assert (code, err) == (0, "")
    assert "2 of 2 pictures" in out
    told = (tmp_path / "s.json").read_text()
    assert set(json.loads(told)["seconds"]) >= {"tokens", "images"}
    assert told.endswith("}\n")
    pipeline = load_pipeline(pair)
    assert pipeline.default_sampling == SamplingConfig(cfg=2.0, top_k=5, top_p=0.0)
    wanted = pipeline.sample([3, 4], seed=2, measure=True)
    with np.load(tmp_path / "t.npz") as tokens, Image.open(tmp_path / "sdvar.png") as grid:
        assert grid.width > 2 * 128
        for scale, each in enumerate(wanted.tokens):
            np.testing.assert_array_equal(tokens[f"scale_{scale:02d}"], each)


def test_an_error_is_one_line(example, tmp_path):
    code, out, err = example("sample", "--model", tmp_path)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
