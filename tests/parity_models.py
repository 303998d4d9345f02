"""Models of the original and ours with the same weights, for the live parity tests."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from agreement import assert_close
from flax import nnx
from golden_models import TINY_VARS, TINY_VQVAE
from original_var import Original, quietly

from convert.to_flax import convert
from sdvar_jax.checkpoint import load_checkpoint
from sdvar_jax.config import FLOAT32, VQVAEConfig, preset
from sdvar_jax.models import VAR, VQVAE

BY_FORMULA = {
    "qk_norm": (TINY_VARS["var_tiny_d2_l2"], TINY_VQVAE),
    "no_qk_norm": (TINY_VARS["var_tiny_d2_nol2"], TINY_VQVAE),
    "shared_adaln": (TINY_VARS["var_tiny_d2_saln_l2"], TINY_VQVAE),
    "d16": (preset("d16"), VQVAEConfig()),
}
FILES = "files"


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same VAR and VQVAE twice.

    Attributes:
      name: a key of ``BY_FORMULA``, or ``FILES``.
      original: what runs the original's.
      torch_var: the original's VAR.
      torch_vqvae: the original's VQVAE.
      var: ours, converted from the original's.
      vqvae: likewise.
    """

    name: str
    original: Original
    torch_var: Any
    torch_vqvae: Any
    var: VAR
    vqvae: VQVAE

    @property
    def labels(self):
        """Of the pictures to compare; large models take minutes a picture."""
        return (7,) if self.var.config.depth >= 16 else (1, 7)

    def assert_close(self, what, got, wanted, tolerance):
        """Absolute for weights by formula, whose numbers are about 1; trained ones are larger."""
        if self.name == FILES:
            tolerance *= max(1.0, np.max(np.abs(wanted)) / 10)
        assert_close(f"{self.name}, {what}", got, wanted, tolerance)


def compiled(function, module, *arguments):
    """``function(module, *arguments)``, compiled; unlike ``nnx.jit`` it copies no weights."""
    graph, state = nnx.split(module)
    return jax.jit(lambda state, *args: function(nnx.merge(graph, state), *args))(state, *arguments)


def _converted(*files):
    """Our VAR and VQVAE from PyTorch files, through a checkpoint that is removed again."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory) / "checkpoint"
        convert(list(dict.fromkeys(files)), output)
        loaded = load_checkpoint(output, FLOAT32)
    return loaded.var, loaded.vqvae


def by_formula(original, name):
    """The pair of a key of ``BY_FORMULA``."""
    import torch

    var_config, vqvae_config = BY_FORMULA[name]
    vqvae = original.filled(original.vqvae(vqvae_config))
    var = original.filled(original.var(var_config, vqvae))
    with tempfile.TemporaryDirectory() as directory:
        files = [Path(directory) / "var.pth", Path(directory) / "vae.pth"]
        for module, file in zip((var, vqvae), files, strict=True):
            torch.save(module.state_dict(), file)
        return Pair(name, original, var, vqvae, *_converted(*files))


def from_files(original, var_file, vae_file):
    """The pair of two files, whatever their sizes."""
    import torch

    var, vqvae = _converted(var_file, vae_file)
    torch_vqvae = original.vqvae(vqvae.config)
    torch_var = original.var(var.config, torch_vqvae)
    for module, file, part in (
        (torch_var, var_file, "var_wo_ddp"),
        (torch_vqvae, vae_file, "vae_local"),
    ):
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        state = state.get("trainer", state)
        with quietly():
            module.load_state_dict(state.get(part, state))
    return Pair(FILES, original, torch_var, torch_vqvae, var, vqvae)
