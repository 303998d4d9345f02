"""What int8 weights cost in quality."""

import json

import numpy as np
import pytest
from small_models import small_draft, small_target, small_vqvae

from benchmarks import weights_quality
from benchmarks.weights_quality import MEASURES, compare
from sdvar_jax.errors import SdvarError
from sdvar_jax.models.var.quantized import with_int8_weights
from sdvar_jax.sampling import SamplingConfig

LABELS, SAMPLING = np.array([1, 4, 7]), SamplingConfig(top_k=0, top_p=0.0)


@pytest.fixture(scope="module")
def records():
    models = {"target": small_target(), "draft": small_draft()}
    return compare(models, small_vqvae().quantizer, LABELS, SAMPLING, batch_size=2)


def test_rounding_moves_each_model_a_little(records):
    assert [(record["model"], record["pictures"]) for record in records] == [
        ("target", 3),
        ("draft", 3),
    ]
    for record in records:
        assert 0 < record["divergence"] < 0.01
        assert all(0 <= record[name] < 0.2 for name in MEASURES)


def test_the_whole_is_the_mean_of_the_scales_by_their_tokens(records):
    tokens = small_target().config.pyramid.lengths
    for record in records:
        for name in MEASURES:
            by_scale = record[f"{name}_by_scale"]
            assert np.average(by_scale, weights=tokens) == pytest.approx(record[name], rel=1e-5)


def test_what_is_int8_already_does_not_move():
    models = {"target": with_int8_weights(small_target())}
    (record,) = compare(models, small_vqvae().quantizer, LABELS, SAMPLING, batch_size=2)
    assert [record[name] for name in MEASURES] == [0, 0, 0]


def test_the_command_writes_json_and_a_table(tmp_path, capsys):
    from sdvar_jax.checkpoint import save_checkpoint

    model = tmp_path / "model"
    save_checkpoint(model, var=small_target(), vqvae=small_vqvae(), storage="safetensors")
    outputs = ["--json", str(tmp_path / "q.json"), "--markdown", str(tmp_path / "q.md")]
    common = ["--model", str(model), "--pictures", "3", "--batch", "2", "--dtype", "float32"]
    weights_quality.main([*common, *outputs])
    written = json.loads((tmp_path / "q.json").read_text())
    assert [record["model"] for record in written["records"]] == ["target"]
    assert written["context"]["compute"] == "float32"
    table = (tmp_path / "q.md").read_text()
    assert "| target | 3 |" in table
    assert capsys.readouterr().out.endswith(table)


def test_a_missing_checkpoint_is_told_before_anything_is_made():
    with pytest.raises(SdvarError):
        weights_quality.main(["--model", "no-such-checkpoint"])
