"""A checkout is imported without leaving traces, or refused in one line."""

import sys

import pytest
from original_var import import_checkout


@pytest.fixture
def checkout(tmp_path):
    """A directory that looks like a checkout; its modules import each other as those do."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("from .var import VALUE\n")
    (tmp_path / "models" / "var.py").write_text("import dist\nVALUE = dist.VALUE\n")
    (tmp_path / "dist.py").write_text("VALUE = 7\n")
    return tmp_path


def test_modules_and_path_are_as_before(checkout, monkeypatch):
    mine = object()
    monkeypatch.setitem(sys.modules, "dist", mine)
    before = dict(sys.modules), list(sys.path)
    models, var = import_checkout(checkout, ("models", "models.var"))
    assert models.VALUE == var.VALUE == 7
    assert (dict(sys.modules), list(sys.path)) == before
    assert sys.modules["dist"] is mine


def test_the_hub_may_be_missing(checkout):
    (checkout / "models" / "var.py").write_text(
        "from huggingface_hub import PyTorchModelHubMixin\n"
        "class VALUE(PyTorchModelHubMixin): pass\n"
    )
    (models,) = import_checkout(checkout, ("models",))
    assert models.VALUE()


def test_what_is_missing_is_named(checkout):
    (checkout / "dist.py").write_text("import no_such_package\n")
    with pytest.raises(pytest.fail.Exception, match="needs no_such_package, which is not"):
        import_checkout(checkout)


def test_another_directory_is_refused(tmp_path):
    with pytest.raises(pytest.fail.Exception, match="is no checkout of VAR"):
        import_checkout(tmp_path)
