"""``examples/distill_draft.py``."""

import json

import numpy as np
import pytest

from sdvar_jax.checkpoint import load_weights, read_info

SHORT = ("--steps", 4, "--batch-size", 8, "--own-samples", 10, "--measured", 10)


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
    import jax

    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


def test_a_new_draft_goes_into_a_checkpoint_with_its_target(example, pair, folder, tmp_path):
    words = ("--model", pair, "--data", folder, "--output", "made", "--depth", 1, *SHORT)
    code, out, _ = example("distill_draft", *words, "--stats", "s.json")
    assert code == 0
    before, after, written = out.splitlines()[-3:]
    assert (before[:8], after[:7], written) == ("before: ", "after: ", "wrote made")
    told = (tmp_path / "s.json").read_text()
    assert told.endswith("}\n")
    stats = json.loads(told)
    assert stats["before"]["pictures"] == stats["after"]["pictures"] == 10

    info, source = read_info(tmp_path / "made"), read_info(pair)
    assert (info.draft_config.depth, info.draft_config.width) == (1, 16)
    assert info.sampling == source.sampling is not None
    for name, array in load_weights(pair, "var").arrays.items():
        kept = load_weights(tmp_path / "made", "var").arrays[name]
        np.testing.assert_array_equal(array.read(), kept.read())


def test_without_a_depth_it_goes_on_with_the_draft_that_is_there(
    example, pair, folder, monkeypatch
):
    class Started(Exception):
        """What the training was given."""

    def distill(pictures, vqvae, target, draft, config):
        raise Started(draft, config)

    monkeypatch.setattr("sdvar_jax.training.distill", distill)
    with pytest.raises(Started) as started:
        example("distill_draft", "--model", pair, "--data", folder, "--output", "o", *SHORT)
    draft, config = started.value.args
    wanted = load_weights(pair, "draft")
    assert draft.config == wanted.config
    np.testing.assert_array_equal(draft.head_kernel[...], wanted.arrays["head_kernel"].read())
    assert config.sampling == read_info(pair).sampling


def test_bad_input_is_one_line(example, pair, folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    words = ("--model", pair, "--data", folder, "--output", "mine", "--overwrite")
    code, out, err = example("distill_draft", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "will not overwrite mine" in err
