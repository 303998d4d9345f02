"""The official sizes: a d16 and the VQVAE written as ``.pth``, converted and loaded."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from golden_weights import fill, fill_one, official_manifest

from sdvar_jax.checkpoint import load_checkpoint
from sdvar_jax.config import VQVAEConfig, preset

ROOT = Path(__file__).parents[2]
MOST_MEMORY = 1.3

_MEASURED = """
import sys
from convert.__main__ import main
code = main(sys.argv[1:])
# getrusage would tell the peak of the process that started this one, if that was larger.
(peak,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("peak", int(peak.split()[1]) * 1024)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """d16 and the VQVAE in the official layout, written by PyTorch."""
    torch = pytest.importorskip("torch")
    directory = tmp_path_factory.mktemp("official")
    paths = []
    for name in ("var_d16", "vae_ch160v4096z32"):
        state = fill(official_manifest(name))
        tensors = {key: torch.from_numpy(np.ascontiguousarray(v)) for key, v in state.items()}
        paths.append(directory / f"{name}.pth")
        torch.save(tensors, paths[-1])
    return paths


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_d16_and_the_vqvae_convert_within_memory_load_and_come_back(files, tmp_path):
    size = sum(path.stat().st_size for path in files)
    output = tmp_path / "checkpoint"
    command = [sys.executable, "-c", _MEASURED, *map(str, files), "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "writing" in done.stderr, "a progress bar shows"
    peak = int(done.stdout.split()[-1])
    print(
        f"checkpoint {size / 2**20:.0f} MiB, peak {peak / 2**20:.0f} MiB, {peak / size:.2f} times"
    )
    assert peak < MOST_MEMORY * size

    loaded = load_checkpoint(output)
    assert loaded.var.config == preset("d16")
    assert loaded.vqvae.config == VQVAEConfig()
    manifest = official_manifest("var_d16")
    for key, kernel in (
        ("head.weight", loaded.var.head_kernel),
        ("blocks.15.ada_lin.1.weight", loaded.var.blocks[15].ada_lin.kernel),
    ):
        np.testing.assert_array_equal(kernel[...], fill_one(key, manifest[key], manifest).T)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(loaded.var, nnx.Param)))
    assert parameters == loaded.info.parts["var"].parameters == 310_283_520
    del loaded

    exported = tmp_path / "var.pth"
    command = [sys.executable, "-m", "convert", "export", str(output), "--part", "var"]
    subprocess.run([*command, "--output", str(exported)], cwd=ROOT, check=True)
    torch = pytest.importorskip("torch")
    came_in = torch.load(files[0], weights_only=True, mmap=True)
    came_out = torch.load(exported, weights_only=True, mmap=True)
    assert list(came_out) == list(came_in)
    for key, tensor in came_in.items():
        assert torch.equal(came_out[key], tensor), key
