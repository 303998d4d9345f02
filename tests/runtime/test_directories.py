"""Output directories."""

import errno
import os
from pathlib import Path

import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.directories import ensure_directory


def test_a_directory_is_made_with_its_parents_and_may_exist(tmp_path):
    assert ensure_directory(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert ensure_directory(tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_a_file_in_the_way_is_named(tmp_path, path):
    (tmp_path / "file").touch()
    with pytest.raises(SdvarError, match="is a file and not a directory"):
        ensure_directory(tmp_path / path)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    # The superuser may write anywhere, so permissions alone would not show this everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SdvarError, match="is not writable"):
        ensure_directory(tmp_path)


def test_a_directory_that_cannot_be_made_gives_the_reason(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(SdvarError, match=r"cannot make the directory .*: read-only file system"):
        ensure_directory(tmp_path / "a")
