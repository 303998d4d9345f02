"""Paths, names of models, and the hub."""

import sys
import types

import pytest

from sdvar_jax.checkpoint import resolve
from sdvar_jax.checkpoint.resolve import named_models, resolve_model
from sdvar_jax.errors import SdvarError


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """Where named models lie, with one on it."""
    directory = tmp_path / "shelf"
    (directory / "tiny").mkdir(parents=True)
    (directory / "tiny" / "checkpoint.json").touch()
    (directory / "no-checkpoint").mkdir()
    monkeypatch.setattr(resolve, "MODELS_DIRECTORY", directory)
    return directory


def test_a_path_is_itself(tmp_path, shelf):
    assert resolve_model(tmp_path) == tmp_path
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_name_is_found(shelf):
    assert named_models() == ("tiny",)
    assert resolve_model("tiny") == shelf / "tiny"


def test_a_directory_wins_over_a_name(tmp_path, shelf, monkeypatch):
    (tmp_path / "tiny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("tiny").resolve() == tmp_path / "tiny"


def test_anything_else_is_told_what_there_is(tmp_path, shelf):
    with pytest.raises(SdvarError, match="no such model; models: tiny"):
        resolve_model("tinny")
    (tmp_path / "var.pth").touch()
    with pytest.raises(SdvarError, match="convert it first: sdvar convert"):
        resolve_model(tmp_path / "var.pth")


class TestHub:
    @pytest.fixture
    def calls(self, tmp_path, monkeypatch):
        calls = []

        def snapshot_download(repository, **options):
            calls.append((repository, options))
            if repository == "no/where":
                raise OSError("not found\nand more")
            return str(tmp_path)

        module = types.ModuleType("huggingface_hub")
        module.snapshot_download = snapshot_download
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return calls

    def test_fetches(self, tmp_path, calls):
        assert resolve_model("hf:someone/var") == tmp_path
        assert resolve_model("hf:someone/var@v2") == tmp_path
        assert calls == [("someone/var", {}), ("someone/var", {"revision": "v2"})]

    def test_failure_is_one_line(self, calls):
        with pytest.raises(SdvarError, match=r"cannot fetch hf:no/where: not found$"):
            resolve_model("hf:no/where")

    @pytest.mark.parametrize("name", ["hf:", "hf:var", "hf:a/b/c", "hf:/var"])
    def test_names_have_a_form(self, name, calls):
        with pytest.raises(SdvarError, match="hf:OWNER/NAME"):
            resolve_model(name)
        assert calls == []

    def test_missing_library_is_told(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(SdvarError, match="extra 'hub'"):
            resolve_model("hf:someone/var")
