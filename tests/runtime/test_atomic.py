"""What is written appears complete or not at all."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import (
    atomic_directory,
    atomic_file,
    check_directory_destination,
    check_file_destination,
    check_free_space,
)


def entries(directory):
    return sorted(entry.name for entry in directory.iterdir())


def test_a_file_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "a.json"
    with atomic_file(target) as aside:
        aside.write_text("new")
        assert not target.exists()
        assert aside.parent == tmp_path
        assert aside.suffix == ".json"
    assert target.read_text() == "new"
    assert entries(tmp_path) == ["a.json"]


def test_a_file_that_exists_is_replaced_whole(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")
    with atomic_file(target) as aside:
        aside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_a_new_file_has_the_permissions_of_the_users_umask(tmp_path):
    with atomic_file(tmp_path / "a") as aside:
        aside.write_text("new")
    (tmp_path / "b").write_text("written plainly")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    with atomic_file(tmp_path / "link") as aside:
        aside.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").read_text() == "new"


def test_a_very_long_name_still_works(tmp_path):
    target = tmp_path / ("n" * 250 + ".png")
    with atomic_file(target) as aside:
        aside.write_text("new")
    assert target.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_file_interrupted_leaves_nothing_and_keeps_the_old_one(tmp_path, error):
    target = tmp_path / "a.json"
    target.write_text("old")
    with pytest.raises(error), atomic_file(target) as aside:  # noqa: PT012
        aside.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert entries(tmp_path) == ["a.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_directory_interrupted_leaves_nothing_and_keeps_the_old_one(tmp_path, error):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(error), atomic_directory(target, overwrite=True) as aside:  # noqa: PT012
        (aside / "deep").mkdir()
        (aside / "deep" / "half").touch()
        raise error
    assert entries(target) == ["old"]
    assert entries(tmp_path) == ["model"]


def test_a_directory_appears_only_when_the_block_ends(tmp_path):
    target = tmp_path / "model"
    with atomic_directory(target) as aside:
        (aside / "weights").touch()
        assert not target.exists()
    assert entries(target) == ["weights"]
    assert entries(tmp_path) == ["model"]


def test_an_empty_directory_is_filled(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    with atomic_directory(target) as aside:
        (aside / "weights").touch()
    assert entries(target) == ["weights"]
    assert entries(tmp_path) == ["model"]


def test_a_directory_that_holds_something_is_replaced_only_when_asked(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(SdvarError, match="not empty"), atomic_directory(target):
        pytest.fail("the block must not run")
    with atomic_directory(target, overwrite=True) as aside:
        (aside / "new").touch()
    assert entries(target) == ["new"]
    assert entries(tmp_path) == ["model"]


def test_a_directory_without_the_marker_is_never_overwritten(tmp_path):
    target = tmp_path / "photos"
    target.mkdir()
    (target / "holiday.jpg").touch()
    with pytest.raises(SdvarError, match=r"holds no config\.json"):
        check_directory_destination(target, overwrite=True, marker="config.json")
    (target / "config.json").touch()
    check_directory_destination(target, overwrite=True, marker="config.json")


def test_a_destination_made_meanwhile_by_someone_else_is_kept(tmp_path):
    target = tmp_path / "model"
    with pytest.raises(SdvarError, match="not empty"), atomic_directory(target) as aside:  # noqa: PT012
        (aside / "ours").touch()
        target.mkdir()
        (target / "theirs").touch()
    assert entries(target) == ["theirs"]
    assert entries(tmp_path) == ["model"]


def test_the_old_directory_comes_back_if_the_new_one_cannot_be_put_in_place(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError), atomic_directory(target, overwrite=True) as aside:
        aside.rmdir()
    assert entries(target) == ["old"]
    assert entries(tmp_path) == ["model"]


@pytest.mark.parametrize("check", [check_file_destination, check_directory_destination])
def test_a_missing_parent_is_refused(tmp_path, check):
    with pytest.raises(SdvarError, match="does not exist"):
        check(tmp_path / "missing" / "a")


@pytest.mark.parametrize("check", [check_file_destination, check_directory_destination])
def test_a_parent_that_is_a_file_is_refused(tmp_path, check):
    (tmp_path / "file").touch()
    with pytest.raises(SdvarError, match="is not a directory"):
        check(tmp_path / "file" / "a")


@pytest.mark.parametrize("check", [check_file_destination, check_directory_destination])
def test_a_parent_that_is_not_writable_is_refused(tmp_path, check, monkeypatch):
    # The superuser may write anywhere, so permissions alone would not show this everywhere.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SdvarError, match="is not writable"):
        check(tmp_path / "a")


def test_an_empty_path_is_refused():
    with pytest.raises(SdvarError, match="empty path"):
        check_file_destination("")


def test_a_directory_is_no_destination_for_a_file(tmp_path):
    with pytest.raises(SdvarError, match="is a directory"):
        check_file_destination(tmp_path)


def test_a_device_is_no_destination_for_a_file():
    with pytest.raises(SdvarError, match="not a regular file"):
        check_file_destination(os.devnull)


def test_a_file_is_no_destination_for_a_directory(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(SdvarError, match="a file of that name exists"):
        check_directory_destination(tmp_path / "model", overwrite=True)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EROFS, "read-only file system"),
        (errno.EACCES, "permission denied"),
    ],
)
@pytest.mark.parametrize("manager", [atomic_file, atomic_directory])
def test_write_errors_become_one_clear_line_and_leave_nothing(tmp_path, manager, code, told):
    with pytest.raises(SdvarError, match=told) as caught, manager(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    assert str(tmp_path / "out") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert entries(tmp_path) == []


def test_a_full_disk_is_recognised_in_other_writers_exceptions(tmp_path):
    with pytest.raises(SdvarError, match="no space left"), atomic_directory(tmp_path / "out"):
        raise ValueError("RESOURCE_EXHAUSTED: writing chunk [OS error: No space left on device]")


def test_an_error_about_another_file_is_not_blamed_on_the_destination(tmp_path):
    with pytest.raises(PermissionError), atomic_file(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "denied", str(tmp_path / "input"))


def test_too_little_free_space_is_told_beforehand(tmp_path):
    check_free_space(tmp_path / "model", 1)
    with pytest.raises(SdvarError, match="no space for"):
        check_free_space(tmp_path / "model", 2**70)


def test_sigterm_leaves_nothing_behind(tmp_path):
    program = textwrap.dedent(
        """
        import sys, time
        from sdvar_jax.runtime.atomic import atomic_directory
        from sdvar_jax.runtime.signals import sigterm_as_exit
        with sigterm_as_exit(), atomic_directory(sys.argv[1]) as aside:
            (aside / "half").touch()
            time.sleep(60)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "out")]) as process:
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".out.*.partial/half")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert entries(tmp_path) == []
