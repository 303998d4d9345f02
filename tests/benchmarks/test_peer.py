"""The PyTorch original beside us; stand-ins take PyTorch's place and the original's."""

import contextlib
import os
import sys
import types
from pathlib import Path

import pytest

from benchmarks.peer import check_torch, measure_peer, share_device
from benchmarks.random_models import target_config
from benchmarks.results import Results
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig

PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
LIMITS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


class TestShareDevice:
    @pytest.fixture(autouse=True)
    def environment(self, monkeypatch):
        """An environment without these names, which is as before afterwards."""
        environment = {k: v for k, v in os.environ.items() if k not in (PREALLOCATE, *LIMITS)}
        monkeypatch.setattr(os, "environ", environment)
        return environment

    def test_jax_takes_nothing_in_advance_and_leaves_more_than_half(self, environment):
        before = dict(environment)
        share_device()
        assert environment == {**before, PREALLOCATE: "false", LIMITS[0]: "0.4"}

    @pytest.mark.parametrize("name", LIMITS)
    def test_a_users_own_limit_stands_alone(self, environment, name):
        environment[name] = "0.7"
        share_device()
        assert {k: environment[k] for k in LIMITS if k in environment} == {name: "0.7"}

    def test_a_user_may_have_memory_taken_in_advance(self, environment):
        environment[PREALLOCATE] = "true"
        share_device()
        assert environment[PREALLOCATE] == "true"


def test_where_pytorch_is_missing_that_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SdvarError, match="pip install torch"):
        check_torch()


class Parameter:
    """Counts how often it was filled."""

    ndim, shape, filled = 2, (4, 4), 0

    def requires_grad_(self, wanted):
        assert wanted is False

    def normal_(self, mean, deviation):
        self.filled += 1


class Model:
    """A model of the original: what it was asked to do, and where it fails.

    Attributes:
      calls: settings of each sampling.
      failing: batch size -> what is raised there.
    """

    def __init__(self):
        self.parameter = Parameter()
        self.calls, self.failing = [], {}
        self.compiling_fails = None
        self.blocks = [types.SimpleNamespace(attn=object(), compile=self._compile)]
        self.fhat_to_img = "decoder"

    def _compile(self):
        if self.compiling_fails:
            raise self.compiling_fails

    def eval(self):
        """As PyTorch's modules have it."""

    def named_parameters(self):
        return [("head.weight", self.parameter)]

    def autoregressive_infer_cfg(self, **settings):
        self.calls.append(settings)
        if settings["B"] in self.failing:
            raise self.failing[settings["B"]]


class Labels:
    def __init__(self, count):
        self.count = count

    def to(self, device):
        assert device == "cpu"
        return self


def torch_module():
    """As much of PyTorch as is used, on a machine without a GPU."""

    @contextlib.contextmanager
    def context(*_, **__):
        yield

    torch = types.ModuleType("torch")
    torch.__version__ = "2.0"
    torch.float16 = "float16"
    torch.backends = types.SimpleNamespace(
        cudnn=types.SimpleNamespace(),
        cuda=types.SimpleNamespace(matmul=types.SimpleNamespace()),
    )
    torch.cuda = types.SimpleNamespace(is_available=lambda: False)
    torch._dynamo = types.SimpleNamespace(config=types.SimpleNamespace(cache_size_limit=8))
    torch.nn = types.SimpleNamespace(Identity=object)
    torch.Generator = lambda: types.SimpleNamespace(manual_seed=lambda seed: seed)
    torch.device = torch.inference_mode = torch.autocast = context
    torch.set_float32_matmul_precision = lambda precision: None
    torch.randint = lambda classes, shape, generator: Labels(*shape)
    torch.compile = lambda function: f"compiled {function}"
    return torch


class TestMeasurePeer:
    @pytest.fixture
    def original(self, monkeypatch):
        """PyTorch, and a checkout's ``models`` that gives out one VQVAE and one transformer."""
        vae, var = Model(), Model()
        made = types.SimpleNamespace(vae=vae, var=var, torch=torch_module(), shapes=None)

        def build_vae_var(**shapes):
            made.shapes = shapes
            return vae, var

        models = types.ModuleType("models")
        models.build_vae_var = build_vae_var
        monkeypatch.setitem(sys.modules, "torch", made.torch)
        monkeypatch.setitem(sys.modules, "models", models)
        return made

    @pytest.fixture
    def results(self):
        """Ours: the target at batch 1 alone, in ten seconds."""
        results = Results({}, quiet=True)
        results.add("decoder", case="target", target="tiny", batch=1, seconds=10.0)
        return results

    def run(self, results, *, compiled=False, batches=(1, 2, 4), sampling=None):
        sampling = SamplingConfig() if sampling is None else sampling
        paths = list(sys.path)
        config = target_config("tiny")
        measure_peer(
            Path("/checkout"),
            "tiny",
            config,
            batches,
            sampling,
            results,
            compiled=compiled,
            repeats=2,
        )
        assert sys.path == paths

    def measured(self, results):
        return [(record["variant"], record["batch"]) for record in results.of_kind("peer")]

    def skipped(self, results):
        return {record["what"]: record["reason"] for record in results.of_kind("skipped")}

    def test_every_batch_is_measured_and_set_against_ours(self, original, results):
        self.run(results)
        assert self.measured(results) == [("eager", 1), ("eager", 2), ("eager", 4)]
        assert self.skipped(results) == {}
        first, second, _ = results.of_kind("peer")
        assert first["ratio"] == first["seconds"] / first["our_seconds"]
        assert first["our_seconds"] == 10.0
        assert (second["our_seconds"], second["ratio"]) == (None, None)
        assert second["images_per_second"] == 2 / second["seconds"]
        assert first["attention"] == "scaled_dot_product_attention"
        assert (first["torch"], first["peak_bytes"]) == ("2.0", None)

    def test_models_have_our_shapes_and_weights_of_random_numbers(self, original, results):
        self.run(results, batches=(1,))
        config = target_config("tiny")
        assert original.shapes["patch_nums"] == config.pyramid.sides
        assert (original.shapes["depth"], original.shapes["V"]) == (config.depth, config.vocab_size)
        assert (original.vae.parameter.filled, original.var.parameter.filled) == (1, 1)

    def test_it_samples_with_our_settings_and_no_more_tokens_than_there_are(
        self, original, results
    ):
        sampling = SamplingConfig(cfg=3.0, top_k=10**6, top_p=0.5)
        self.run(results, batches=(2,), sampling=sampling)
        for call in original.var.calls:
            assert call["label_B"].count == call["B"] == 2
            assert (call["cfg"], call["top_p"]) == (3.0, 0.5)
            assert call["top_k"] == target_config("tiny").vocab_size

    def test_a_batch_that_fails_is_told_and_the_others_are_measured(self, original, results):
        original.var.failing = {2: RuntimeError("out of memory\nTried to allocate")}
        self.run(results)
        assert self.measured(results) == [("eager", 1), ("eager", 4)]
        assert self.skipped(results) == {
            "PyTorch original, tiny, eager, batch 2": "RuntimeError: out of memory"
        }

    def test_a_batch_may_fail_eagerly_and_compiled(self, original, results):
        original.var.failing = {4: MemoryError("too large")}
        self.run(results, compiled=True)
        assert self.measured(results) == [
            (variant, batch) for variant in ("eager", "torch.compile") for batch in (1, 2)
        ]
        assert self.skipped(results) == {
            f"PyTorch original, tiny, {variant}, batch 4": "MemoryError: too large"
            for variant in ("eager", "torch.compile")
        }
        assert original.vae.fhat_to_img == "compiled decoder"
        assert original.torch._dynamo.config.cache_size_limit > 8

    def test_where_it_does_not_compile_the_eager_figures_stay(self, original, results):
        original.var.compiling_fails = OSError("no compiler")
        self.run(results, compiled=True, batches=(1, 2))
        assert self.measured(results) == [("eager", 1), ("eager", 2)]
        assert self.skipped(results) == {
            "PyTorch original, tiny, torch.compile": "OSError: no compiler"
        }

    def test_models_that_cannot_be_made_are_one_failure(self, original, results, monkeypatch):
        monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
        self.run(results)
        assert self.measured(results) == []
        (what,) = self.skipped(results)
        assert what == "PyTorch original, tiny"
        assert self.skipped(results)[what].startswith("ImportError: cannot import")
