"""Runs the PyTorch original from the user's own checkout.

Settings are those of the original's demo notebook: float16 autocast, TF32, and whichever of its
attention implementations is installed; random weights on both sides.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.random_models import vqvae_config
from benchmarks.results import Results
from benchmarks.timing import measure
from sdvar_jax.config import VARConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig

_FILES = ("dist.py", "models/__init__.py", "models/var.py", "models/vqvae.py")
# Every scale has its own shapes, and one program each.
_MOST_PROGRAMS = 256
_MEMORY_LIMIT = "XLA_CLIENT_MEM_FRACTION"


def share_device() -> None:
    """Lets both libraries use one device; call it before JAX is first used.

    Neither may take the device's memory in advance, and JAX, which keeps what it once took, leaves
    more than half of it to the original; a user's own limit stands.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # JAX refuses to start where both names are set.
    if not {_MEMORY_LIMIT, "XLA_PYTHON_CLIENT_MEM_FRACTION"} & os.environ.keys():
        os.environ[_MEMORY_LIMIT] = "0.4"


def check_repo(path: Path) -> Path:
    """The absolute path of a checkout of the original; ``SdvarError`` where it is none."""
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise SdvarError(
            f"{path} is no checkout of the PyTorch original VAR: it lacks {', '.join(missing)}; "
            "give the directory that holds its models/"
        )
    return path.absolute()


def check_torch() -> None:
    """``SdvarError`` where PyTorch is not installed; it is not loaded yet."""
    if importlib.util.find_spec("torch") is None:
        raise SdvarError("PyTorch is not installed, so the original cannot run; pip install torch")


@contextlib.contextmanager
def _importing_from(repo: Path) -> Iterator[None]:
    """Lets ``models`` and ``dist`` be those of the checkout."""
    sys.path.insert(0, str(repo))
    try:
        yield
    finally:
        sys.path.remove(str(repo))


class PyTorchPeer:
    """The original's models with random weights on its device.

    Args:
      repo: the checkout.
      config: shapes of the transformer.
      sampling: guidance and filtering.
      seed: of weights and samples.
    """

    def __init__(
        self, repo: Path, config: VARConfig, sampling: SamplingConfig, seed: int = 0
    ) -> None:
        import torch

        self._torch: Any = torch
        self._config, self._sampling, self._seed = config, sampling, seed
        self._on_gpu = torch.cuda.is_available()
        self.device = "cuda" if self._on_gpu else "cpu"
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
        # It prints its configuration while it is built.
        with (
            _importing_from(repo),
            contextlib.redirect_stdout(io.StringIO()),
            torch.device(self.device),
        ):
            from models import build_vae_var

            self._vae, self._var = build_vae_var(
                device=self.device,
                patch_nums=config.pyramid.sides,
                V=config.vocab_size,
                Cvae=config.latent_channels,
                ch=vqvae_config(config).channels,
                share_quant_resi=4,
                num_classes=config.num_classes,
                depth=config.depth,
                shared_aln=config.shared_aln,
                attn_l2_norm=config.attn_l2_norm,
            )
        for model in (self._vae, self._var):
            model.eval()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(False)
                self._fill(name, parameter)

    def _fill(self, name: str, parameter: Any) -> None:
        """Random numbers on the scale that ``random_models`` uses."""
        if name.endswith("scale_mul_1H11"):
            parameter.normal_(math.log(4.0), 0.1)
        elif "pos_1LC" in name or "pos_start" in name or "lvl_embed" in name or parameter.ndim < 2:
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)
        else:
            parameter.normal_(0.0, math.prod(parameter.shape[1:]) ** -0.5)

    @property
    def version(self) -> str:
        """Of PyTorch."""
        return str(self._torch.__version__)

    @property
    def attention(self) -> str:
        """Which of the original's attention implementations runs."""
        attention = self._var.blocks[0].attn
        for attribute, name in (("using_flash", "flash_attn"), ("using_xform", "xformers")):
            if getattr(attention, attribute, False):
                return name
        return "scaled_dot_product_attention"

    def compile(self) -> None:
        """Compiles blocks and image decoder with ``torch.compile``."""
        torch = self._torch
        for limit in ("cache_size_limit", "recompile_limit", "accumulated_recompile_limit"):
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, _MOST_PROGRAMS)
        for block in self._var.blocks:
            # Without training it does nothing, but its rate would make every block a program.
            block.drop_path = torch.nn.Identity()
            block.compile()
        self._vae.fhat_to_img = torch.compile(self._vae.fhat_to_img)

    def sampler(self, batch: int) -> Callable[[], None]:
        """A call that makes ``batch`` images and waits for them."""
        torch = self._torch
        generator = torch.Generator().manual_seed(self._seed)
        labels = torch.randint(self._config.num_classes, (batch,), generator=generator)
        labels = labels.to(self.device)

        def sample() -> None:
            with (
                torch.inference_mode(),
                torch.autocast(
                    "cuda", enabled=self._on_gpu, dtype=torch.float16, cache_enabled=True
                ),
            ):
                self._var.autoregressive_infer_cfg(
                    B=batch,
                    label_B=labels,
                    cfg=self._sampling.cfg,
                    # The original refuses more than there are tokens.
                    top_k=min(self._sampling.top_k, self._config.vocab_size),
                    top_p=self._sampling.top_p,
                    g_seed=self._seed,
                    more_smooth=False,
                )
            if self._on_gpu:
                torch.cuda.synchronize()

        return sample

    def peak_bytes(self) -> int | None:
        """Peak memory since ``forget_peak``; None on a CPU."""
        return self._torch.cuda.max_memory_allocated() if self._on_gpu else None

    def forget_peak(self) -> None:
        """Starts the peak anew."""
        if self._on_gpu:
            self._torch.cuda.reset_peak_memory_stats()

    def release(self) -> None:
        """Gives the device's memory back."""
        del self._vae, self._var
        gc.collect()
        if self._on_gpu:
            self._torch.cuda.empty_cache()


def measure_peer(
    repo: Path,
    name: str,
    config: VARConfig,
    batches: Sequence[int],
    sampling: SamplingConfig,
    results: Results,
    *,
    compiled: bool,
    repeats: int,
    seed: int = 0,
) -> None:
    """Times the original at every batch size, with ratios to target-only of the same run."""
    with _told(results, f"PyTorch original, {name}"):
        peer = PyTorchPeer(repo, config, sampling, seed)
        for variant in ("eager", "torch.compile") if compiled else ("eager",):
            what = f"PyTorch original, {name}, {variant}"
            with _told(results, what):
                if variant == "torch.compile":
                    peer.compile()
                for batch in batches:
                    with _told(results, f"{what}, batch {batch}"):
                        _measure_batch(peer, name, batch, variant, results, repeats)
        peer.release()


@contextlib.contextmanager
def _told(results: Results, what: str) -> Iterator[None]:
    """Writes down another library's failure, which must not take our own results with it."""
    try:
        yield
    except Exception as error:
        first_line = next(iter(str(error).splitlines()), "")
        results.add("skipped", what=what, reason=f"{type(error).__name__}: {first_line}")


def _measure_batch(
    peer: PyTorchPeer, name: str, batch: int, variant: str, results: Results, repeats: int
) -> None:
    peer.forget_peak()
    # Compiled on its first calls, shape by shape.
    timing = measure(peer.sampler(batch), repeats, warmup=3)
    ours = next(
        (
            record["seconds"]
            for record in results.of_kind("decoder")
            if (record["case"], record["target"], record["batch"]) == ("target", name, batch)
        ),
        None,
    )
    results.add(
        "peer",
        target=name,
        batch=batch,
        variant=variant,
        attention=peer.attention,
        torch=peer.version,
        **timing.fields(),
        images_per_second=batch / timing.seconds,
        peak_bytes=peer.peak_bytes(),
        our_seconds=ours,
        ratio=None if ours is None else timing.seconds / ours,
    )
