"""Small checkpoints on disk, and the command line in this process.

Whatever imports JAX is imported by the fixtures: JAX must not be loaded before the settings of
``tests/conftest.py`` are made.
"""

import dataclasses

import pytest

CLASS_NAMES = [
    "apple",
    "pear",
    "red fox, Vulpes vulpes",
    "crane",
    "cup",
    "boat",
    "kite",
    "drum",
    "tree",
    "owl",
]


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a command line left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The one line of an error."""
        assert self.err.startswith("error: "), self.err
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("error: ").rstrip("\n")


@pytest.fixture
def sdvar(capsys, tmp_path, monkeypatch):
    """Runs a command line in an empty directory."""
    from sdvar_jax.cli.main import main

    monkeypatch.chdir(tmp_path)

    def run(*words):
        capsys.readouterr()
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """A checkpoint with target, VQVAE, draft and class names."""
    from small_models import small_draft, small_target, small_vqvae

    models = {"var": small_target(), "vqvae": small_vqvae(), "draft": small_draft()}
    return _saved(tmp_path_factory, "pair", class_names=CLASS_NAMES, **models)


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    """A checkpoint with target and VQVAE, no draft and no class names."""
    from small_models import small_target, small_vqvae

    return _saved(tmp_path_factory, "alone", var=small_target(), vqvae=small_vqvae())


@pytest.fixture(scope="session")
def in_8_bits(tmp_path_factory):
    """A checkpoint with target and VQVAE, the target's matrices in 8 bits."""
    from small_models import small_target, small_vqvae

    from sdvar_jax.checkpoint import PartWeights

    rounded = PartWeights.of(small_target()).rounded_to_int8()
    return _saved(tmp_path_factory, "in_8_bits", var=rounded, vqvae=small_vqvae())


@pytest.fixture(scope="session")
def with_settings(tmp_path_factory):
    """A checkpoint with target and VQVAE that names sampling settings."""
    from small_models import small_target, small_vqvae

    from sdvar_jax.sampling import SamplingConfig

    settings = SamplingConfig(cfg=3.0, top_k=0, top_p=0.75)
    models = {"var": small_target(), "vqvae": small_vqvae()}
    return _saved(tmp_path_factory, "settings", sampling=settings, **models)


@pytest.fixture(scope="session")
def var_only(tmp_path_factory):
    """A checkpoint with a small VAR alone, as a draft is converted."""
    from small_models import small_draft

    return _saved(tmp_path_factory, "var_only", var=small_draft())


@pytest.fixture(scope="session")
def foreign_draft(tmp_path_factory):
    """A VAR of another vocabulary and other classes."""
    from small_models import small_model, small_var_config

    config = small_var_config(width=16, vocab_size=16, num_classes=5)
    return _saved(tmp_path_factory, "foreign", var=small_model(config))


def _saved(tmp_path_factory, name, **parts):
    from sdvar_jax.checkpoint import save_checkpoint

    directory = tmp_path_factory.mktemp("checkpoints") / name
    save_checkpoint(directory, storage="safetensors", **parts)
    return directory


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    """A picture file, not square."""
    import numpy as np
    from small_models import SMALL_SIDE

    from sdvar_jax.imaging import save_png

    file = tmp_path_factory.mktemp("pictures") / "photo.png"
    pixels = np.random.default_rng(0).random((SMALL_SIDE, 2 * SMALL_SIDE, 3))
    save_png(pixels.astype(np.float32), file)
    return file


_LOADED = {}


@pytest.fixture(autouse=True)
def _models_are_loaded_once(monkeypatch):
    """So that each program of the command line compiles once for all tests."""
    from sdvar_jax.loading import ModelFiles

    load = ModelFiles.load

    def load_once(files, dtypes=None, *, meanwhile=None, **options):
        parts = tuple((part.directory, part.name) for part in files.parts)
        key = (parts, dtypes, *(options.get(name) for name in ("mesh", "kernels", "weights")))
        if key not in _LOADED:
            _LOADED[key] = load(files, dtypes, **options)
        if meanwhile is not None:
            meanwhile(_LOADED[key])
        return _LOADED[key]

    monkeypatch.setattr(ModelFiles, "load", load_once)


@pytest.fixture
def nothing_loads_or_compiles(monkeypatch):
    """Fails as soon as weights are read or a program is compiled."""
    from sdvar_jax.loading import ModelFiles
    from sdvar_jax.pipeline import Pipeline

    def fail(*args, **kwargs):
        raise AssertionError("weights were read or a program was compiled")

    monkeypatch.setattr(ModelFiles, "load", fail)
    monkeypatch.setattr(Pipeline, "_compile", fail)
