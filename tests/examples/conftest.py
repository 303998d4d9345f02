"""The programs in ``examples/``, run in this process on small models."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(capsys, tmp_path, monkeypatch):
    """Runs an example in an empty directory; gives its exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(name, *words):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        code = 0
        try:
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        except SystemExit as left:
            code = left.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """A checkpoint with target, VQVAE, draft and sampling settings, of ten classes."""
    from small_models import small_draft, small_target, small_vqvae

    from sdvar_jax.checkpoint import save_checkpoint
    from sdvar_jax.sampling import SamplingConfig

    directory = tmp_path_factory.mktemp("checkpoints") / "pair"
    models = {"var": small_target(), "vqvae": small_vqvae(), "draft": small_draft()}
    settings = SamplingConfig(cfg=2.0, top_k=5, top_p=0.0)
    save_checkpoint(directory, storage="safetensors", sampling=settings, **models)
    return directory


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Two pictures of each of ten classes."""
    from small_models import SMALL_CLASSES, SMALL_SIDE

    from sdvar_jax.imaging import save_png

    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for label in range(SMALL_CLASSES):
        for number in range(2):
            pixels = random.random((SMALL_SIDE, SMALL_SIDE, 3), dtype=np.float32)
            (root / f"class {label}").mkdir(exist_ok=True)
            save_png(pixels, root / f"class {label}" / f"{number}.png")
    return root
