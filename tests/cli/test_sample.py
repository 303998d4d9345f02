"""``sdvar sample``."""

import json

import numpy as np
import pytest
from PIL import Image
from small_models import SMALL_PYRAMID, SMALL_SIDE

from sdvar_jax.runtime import atomic

TWO = ("--batch-size", 2, "--quiet")


def tokens_of(path):
    with np.load(path) as arrays:
        return dict(arrays)


def test_pictures_tokens_and_statistics_are_written(sdvar, pair, tmp_path):
    done = sdvar(
        *("sample", "pear", "3", "-m", pair, "--seed", 5, "--batch-size", 2),
        *("--out", "grid.png", "--singles", "single", "--tokens", "t.npz", "--stats", "s.json"),
    )
    assert (done.code, done.err) == (0, "")
    assert "wrote grid.png" in done.out
    assert "making tokens" in done.out

    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width > 2 * 128
        assert json.loads(grid.text["sdvar"])["seed"] == 5
    singles = sorted(path.name for path in (tmp_path / "single").iterdir())
    assert singles == ["0000-1-pear.png", "0001-3-crane.png"]
    with Image.open(tmp_path / "single" / singles[0]) as single:
        assert single.size == (SMALL_SIDE, SMALL_SIDE)

    arrays = tokens_of(tmp_path / "t.npz")
    np.testing.assert_array_equal(arrays.pop("labels"), [1, 3])
    assert list(arrays) == ["scale_00", "scale_01", "scale_02"]
    assert [each.shape for each in arrays.values()] == [(2, n) for n in SMALL_PYRAMID.lengths]
    assert all(each.dtype == np.int32 for each in arrays.values())

    stats = json.loads((tmp_path / "s.json").read_text())
    assert set(stats["seconds"]) == {"load", "compile", "tokens", "images", "total"}
    assert stats["device"]["platform"] == "cpu"
    assert stats["settings"]["dtype"] == "float32"
    assert stats["settings"]["sampling"]["cfg"] == 1.5
    assert stats["settings"]["decoder"] == {"name": "target"}
    assert stats["models"]["target"]["config"]["width"] == 32
    assert stats["models"]["vqvae"]["parameters"] > 0
    assert stats["models"]["draft"] is None
    assert stats["labels"] == [1, 3]
    assert stats["peak_memory_bytes"]["host"] > 0
    assert stats["versions"]["jax"]
    assert stats["statistics"] is None


def test_speculative_decoding_gives_the_targets_own_tokens(sdvar, pair, tmp_path):
    common = ("sample", "1", "3", "-m", pair, "--seed", 5, *TWO)
    assert sdvar(*common, "--tokens", "target.npz").code == 0
    done = sdvar(
        *common,
        *("--decoder", "speculative", "--gamma", 2, "--tokens", "exact.npz"),
        *("--stats", "s.json", "--trace", "trace.npz", "--strip", "strip.png"),
    )
    assert (done.code, done.err) == (0, "")
    target, exact = tokens_of(tmp_path / "target.npz"), tokens_of(tmp_path / "exact.npz")
    for name, wanted in target.items():
        np.testing.assert_array_equal(exact[name], wanted)

    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["models"]["draft"]["part"] == "draft"
    assert stats["settings"]["decoder"]["accept"] == {"name": "exact"}
    assert stats["settings"]["decoder"]["gamma"] == 2
    assert 1 <= stats["statistics"]["target_calls"] <= SMALL_PYRAMID.num_scales

    trace = tokens_of(tmp_path / "trace.npz")
    assert trace["committed_tokens"].shape[1:] == (2, SMALL_PYRAMID.total_length)
    last = stats["statistics"]["target_calls"] - 1
    np.testing.assert_array_equal(trace["progress"][last], [SMALL_PYRAMID.num_scales] * 2)
    np.testing.assert_array_equal(
        trace["committed_tokens"][last],
        np.concatenate([target[name] for name in sorted(target) if name != "labels"], axis=1),
    )
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.width > SMALL_PYRAMID.num_scales * 128


NOTE = (
    "note: in bfloat16 exact decoding equals the target up to rounding; "
    "use --dtype float32 for identical pictures\n"
)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-d", "speculative", "--dtype", "bfloat16"], NOTE),
        (["-d", "speculative", "--dtype", "bfloat16", "--quiet"], ""),
        (["-d", "speculative", "--dtype", "float32"], ""),
        (["-d", "speculative", "--dtype", "bfloat16", "--accept", "match"], ""),
        (["-d", "speculative", "--dtype", "bfloat16", "--check-until", "2"], ""),
        (["--dtype", "bfloat16"], ""),
    ],
)
def test_exact_decoding_says_where_rounding_tells(sdvar, pair, monkeypatch, words, told):
    from sdvar_jax.errors import SdvarError
    from sdvar_jax.loading import ModelFiles

    def stop(*args, **kwargs):
        raise SdvarError("loaded")

    monkeypatch.setattr(ModelFiles, "load", stop)
    assert sdvar("sample", "1", "-m", pair, *words).err == told + "error: loaded\n"


def test_the_kernels_are_chosen_and_told(sdvar, pair, tmp_path):
    common = ("sample", "1", "3", "-m", pair, "--seed", 5, *TWO, "--stats", "s.json")
    for wanted, chosen in (("auto", "scanned"), ("reference", "reference")):
        assert sdvar(*common, "--kernels", wanted).code == 0
        assert json.loads((tmp_path / "s.json").read_text())["settings"]["kernels"] == chosen


def test_weights_may_be_eight_bits(sdvar, pair, tmp_path):
    common = ("sample", "1", "3", "-m", pair, "--seed", 5, "--stats", "s.json")
    for wanted in ("float", "int8"):
        done = sdvar(*common, "--weights", wanted, "--tokens", f"{wanted}.npz")
        assert (done.code, "int8 weights" in done.out + done.err) == (0, wanted == "int8")
        assert json.loads((tmp_path / "s.json").read_text())["settings"]["weights"] == wanted
    own, eight = (tokens_of(tmp_path / f"{name}.npz") for name in ("float", "int8"))
    assert {name: each.shape for name, each in own.items()} == {
        name: each.shape for name, each in eight.items()
    }


def test_a_batch_may_be_spread_over_devices(sdvar, pair, tmp_path):
    common = ("sample", "1", "3", "-m", pair, "--seed", 5, *TWO)
    assert sdvar(*common, "--tokens", "one.npz").code == 0
    done = sdvar(*common, "--tokens", "two.npz", "--devices", 2)
    assert (done.code, done.err) == (0, "")
    one, two = tokens_of(tmp_path / "one.npz"), tokens_of(tmp_path / "two.npz")
    for name, wanted in one.items():
        np.testing.assert_array_equal(two[name], wanted)


def test_count_makes_several_pictures_of_each_class(sdvar, pair, tmp_path):
    assert sdvar("sample", "4", "-n", 2, "-m", pair, "--tokens", "t.npz", *TWO).code == 0
    np.testing.assert_array_equal(tokens_of(tmp_path / "t.npz")["labels"], [4, 4])


def test_without_classes_eight_are_chosen(sdvar, pair, tmp_path):
    assert sdvar("sample", "-m", pair, "--tokens", "t.npz", *TWO).code == 0
    labels = tokens_of(tmp_path / "t.npz")["labels"]
    assert len(set(labels.tolist())) == 8
    assert (tmp_path / "sdvar.png").is_file()


def test_quiet_prints_only_what_was_written(sdvar, pair):
    done = sdvar("sample", "4", "2", "-m", pair, *TWO)
    assert (done.out, done.err) == ("wrote sdvar.png\n", "")


REFUSED = [
    (["unicorn"], "unknown class name 'unicorn'"),
    (["10"], "label 10 is out of range; give one from 0 to 9"),
    (["3-12"], "label 12 is out of range"),
    (["5-3"], "runs backwards"),
    (["--gamma", "0", "-d", "speculative"], "gamma must be at least 1"),
    (["--gamma", "4", "-d", "speculative"], "gamma must be at most 3"),
    (["--gamma", "2,2", "-d", "speculative"], "one gamma for each of the 3"),
    (["--gamma", "often", "-d", "speculative"], "--gamma is a number"),
    (["--gamma", "2"], "--gamma belongs to --decoder speculative, and the decoder is target"),
    (["--entry", "2"], "--entry belongs to --decoder handoff"),
    (["-d", "handoff"], "a handoff needs --entry"),
    (["-d", "handoff", "--entry", "4"], "entry must lie in 0..3"),
    (["-d", "handoff", "--entry", "1", "--gamma", "2"], "--gamma belongs to"),
    (["-d", "speculative", "--threshold", "0.5"], "threshold of 'exact'"),
    (["-d", "speculative", "--accept", "match", "--threshold", "1.5"], "must lie in 0..1"),
    (["-d", "speculative", "--accept-top-k", "5"], "--accept-top-k belongs to --accept topk"),
    (["-d", "speculative", "--match-top1"], "--match-top1/--match-coupled belongs to"),
    (["-d", "speculative", "--commit", "draft"], "commit 'draft'"),
    (["-d", "speculative", "--check-until", "4"], "check_until must lie in 1..3"),
    (["-d", "speculative", "--more-smooth"], "more_smooth"),
    (["--threshold", "0.5"], "--threshold belongs to --decoder speculative"),
    (["--trace", "t.npz"], "--trace belongs to --decoder speculative"),
    (["--strip", "s.png", "--more-smooth"], "--strip draws what the tokens stand for"),
    (["--devices", "1000"], "--devices 1000 asks for more devices than there are"),
    (["--kernels", "fused"], "the fused kernels need an NVIDIA GPU, and this is cpu"),
    (["--kernels", "interpreted"], "Invalid value for '--kernels'"),
    (["--weights", "int4"], "Invalid value for '--weights'"),
    (["--guidance-until", "4"], "guidance_until must lie in 0..3"),
    (["--out", "missing/grid.png"], "does not exist"),
    (["--out", "."], "is a directory"),
    (["--tokens", "x", "--stats", "x"], "--tokens and --stats name the same file"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
@pytest.mark.usefixtures("nothing_loads_or_compiles")
def test_bad_input_is_one_line_before_anything_is_loaded(sdvar, pair, tmp_path, words, message):
    done = sdvar("sample", "-m", pair, *words)
    assert done.code == 2
    assert message in done.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_loads_or_compiles")
class TestModels:
    """Checkpoints that are missing, foreign or do not belong together."""

    def test_a_missing_directory(self, sdvar):
        done = sdvar("sample", "-m", "nowhere/at/all")
        assert (done.code, "no checkpoint directory at nowhere/at/all" in done.error) == (2, True)

    def test_a_directory_that_is_no_checkpoint(self, sdvar, tmp_path):
        (tmp_path / "empty").mkdir()
        done = sdvar("sample", "-m", "empty")
        assert (done.code, "is not a checkpoint" in done.error) == (2, True)

    def test_a_file(self, sdvar, tmp_path):
        (tmp_path / "var.pth").write_bytes(b"x")
        done = sdvar("sample", "-m", "var.pth")
        assert (done.code, "convert it first" in done.error) == (2, True)

    def test_a_damaged_description(self, sdvar, tmp_path):
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "checkpoint.json").write_text("{")
        done = sdvar("sample", "-m", "bad")
        assert (done.code, "cannot read" in done.error) == (2, True)

    def test_no_vqvae(self, sdvar, var_only):
        done = sdvar("sample", "-m", var_only)
        assert (done.code, "holds no VQVAE" in done.error) == (2, True)

    def test_no_draft(self, sdvar, alone):
        done = sdvar("sample", "-m", alone, "-d", "speculative")
        assert (done.code, "name one with --draft" in done.error) == (2, True)

    def test_a_foreign_draft(self, sdvar, pair, foreign_draft):
        done = sdvar("sample", "-m", pair, "--draft", foreign_draft)
        assert done.code == 2
        assert "vocab_size 16 and 32; num_classes 5 and 10 (draft first)" in done.error

    def test_a_vqvae_of_another_model(self, sdvar, foreign_draft, pair):
        done = sdvar("sample", "-m", foreign_draft, "--vqvae", pair)
        assert (done.code, "the VAR and the VQVAE do not belong together" in done.error) == (
            2,
            True,
        )

    def test_a_default_model_that_is_not_installed(self, sdvar, monkeypatch):
        monkeypatch.setattr("sdvar_jax.loading.named_models", lambda: ())
        done = sdvar("sample")
        assert (done.code, "name a checkpoint (--model DIR)" in done.error) == (2, True)


@pytest.mark.usefixtures("nothing_loads_or_compiles")
@pytest.mark.parametrize("option", ["--out", "--tokens", "--stats", "--strip"])
def test_an_unwritable_directory_is_told_first(sdvar, pair, option, monkeypatch):
    monkeypatch.setattr(atomic.os, "access", lambda path, mode: False)
    done = sdvar("sample", "-m", pair, option, "file")
    assert (done.code, "is not writable" in done.error) == (2, True)


def test_a_full_disk_leaves_nothing_half_written(sdvar, pair, tmp_path, monkeypatch):
    def full(source, destination):
        raise OSError(28, "No space left on device", str(source))

    monkeypatch.setattr(atomic.os, "replace", full)
    done = sdvar("sample", "4", "2", "-m", pair, *TWO)
    assert (done.code, "no space left" in done.error) == (2, True)
    assert list(tmp_path.iterdir()) == []
