"""The PyTorch original beside this package, with a stand-in for it."""

import os
from types import SimpleNamespace

import pytest

from benchmarks import peer
from benchmarks.results import Results
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig

OURS, OLD = "XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"
PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"


@pytest.fixture
def environment(monkeypatch):
    for name in (OURS, OLD, PREALLOCATE):
        monkeypatch.setenv(name, "set by the test, so that it is put back")
        monkeypatch.delenv(name)
    return monkeypatch


class Original:
    """A stand-in; what it refuses is in ``too_large``."""

    attention, version = "some attention", "1.2.3"
    too_large = frozenset()
    compiles = True

    def __init__(self, repo, config, sampling, seed):
        self.released = False

    def compile(self):
        if not self.compiles:
            raise RuntimeError("no compiler\nand much more")

    def sampler(self, batch):
        def sample():
            if batch in self.too_large:
                raise MemoryError(f"batch {batch} is too large")

        return sample

    def forget_peak(self):
        pass

    def peak_bytes(self):
        return 1000

    def release(self):
        pass


def measured(monkeypatch, original, batches, compiled=False):
    monkeypatch.setattr(peer, "PyTorchPeer", original)
    results = Results({}, None, quiet=True)
    results.add("decoder", case="target", target="tiny", batch=1, seconds=0.5)
    peer.measure_peer(
        "repo",
        "tiny",
        SimpleNamespace(),
        batches,
        SamplingConfig(),
        results,
        compiled=compiled,
        repeats=3,
    )
    return results


class TestSharingTheDevice:
    def test_jax_takes_nothing_in_advance_and_leaves_more_than_half(self, environment):
        peer.share_device()
        assert (os.environ[PREALLOCATE], os.environ[OURS]) == ("false", "0.4")

    @pytest.mark.parametrize("name", [OURS, OLD])
    def test_a_users_own_limit_stands_and_no_second_one_beside_it(self, environment, name):
        environment.setenv(name, "0.7")
        peer.share_device()
        assert os.environ[name] == "0.7"
        assert len({OURS, OLD} & os.environ.keys()) == 1


class TestMeasuring:
    def test_every_batch_has_its_time_and_where_ours_is_known_the_ratio(self, monkeypatch):
        one, eight = measured(monkeypatch, Original, [1, 8]).of_kind("peer")
        assert (one["batch"], eight["batch"]) == (1, 8)
        assert one["ratio"] == pytest.approx(one["seconds"] / 0.5)
        assert eight["ratio"] is None
        assert (one["attention"], one["torch"], one["variant"]) == (
            "some attention",
            "1.2.3",
            "eager",
        )

    def test_a_batch_that_fails_takes_no_other_with_it(self, monkeypatch):
        monkeypatch.setattr(Original, "too_large", {8})
        results = measured(monkeypatch, Original, [1, 8, 2])
        assert [record["batch"] for record in results.of_kind("peer")] == [1, 2]
        (skipped,) = results.of_kind("skipped")
        assert skipped["what"] == "PyTorch original, tiny, eager, batch 8"
        assert skipped["reason"] == "MemoryError: batch 8 is too large"

    def test_without_a_compiler_the_eager_times_stay(self, monkeypatch):
        monkeypatch.setattr(Original, "compiles", False)
        results = measured(monkeypatch, Original, [1], compiled=True)
        assert [record["variant"] for record in results.of_kind("peer")] == ["eager"]
        (skipped,) = results.of_kind("skipped")
        assert skipped["reason"] == "RuntimeError: no compiler"

    def test_both_variants_are_measured_where_they_run(self, monkeypatch):
        results = measured(monkeypatch, Original, [1], compiled=True)
        variants = [record["variant"] for record in results.of_kind("peer")]
        assert variants == ["eager", "torch.compile"]


def test_a_directory_that_is_no_checkout_is_refused(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "var.py").touch()
    with pytest.raises(SdvarError, match=r"lacks dist\.py, models/__init__\.py, models/vqvae\.py"):
        peer.check_repo(tmp_path)
