"""Files and directories that appear complete or not at all.

Both context managers hand out a hidden path beside the destination (same parent directory, hence
same file system), and rename it into place when the block ends without an exception. On any
exception, KeyboardInterrupt and SystemExit included, what was written aside is removed and the
destination is as it was before. SIGTERM counts as an exception only where a handler turns it into
one: see :mod:`sdvar_jax.runtime.signals`. A process killed outright leaves at most a hidden
``.partial`` sibling, never a destination that is half written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from sdvar_jax.errors import SdvarError

StrPath = str | os.PathLike[str]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_OTHER_WRITE_ERRORS = frozenset({errno.EFBIG, errno.EIO, errno.ENAMETOOLONG})

# A file name may hold 255 bytes; the rest is for what marks the copy written aside.
_LONGEST_STEM = 40
_LONGEST_SUFFIX = 16


def check_file_destination(path: StrPath) -> None:
    """Raises now, before any long work, if a file could not be written at ``path``.

    Args:
      path: the file's destination; a regular file already there is fine, it would be replaced.

    Raises:
      SdvarError: the parent directory is missing or not writable, or something that is not a
        regular file stands at ``path``.
    """
    _check_parent(path)
    target = _real(path)
    if target.is_dir():
        raise SdvarError(f"cannot write {path}: it is a directory; give a file name")
    if target.exists() and not target.is_file():
        raise SdvarError(f"cannot write {path}: it is not a regular file; give another name")


def check_directory_destination(
    path: StrPath, *, overwrite: bool = False, marker: str | None = None
) -> None:
    """Raises now, before any long work, if a directory could not be made at ``path``.

    Args:
      path: the directory's destination. An empty directory already there is fine.
      overwrite: whether a directory that holds something may be replaced.
      marker: name of an entry that a directory must hold for ``overwrite`` to replace it, so that
        a mistyped path never costs the user a directory that is not ours.

    Raises:
      SdvarError: the parent directory is missing or not writable, or what stands at ``path`` may
        not be replaced.
    """
    _check_parent(path)
    target = _real(path)
    if not target.exists():
        return
    if not target.is_dir():
        raise SdvarError(f"cannot make the directory {path}: a file of that name exists")
    with _translated(path, target):
        holds_something = any(target.iterdir())
    if not holds_something:
        return
    if not overwrite:
        raise SdvarError(f"{path} exists and is not empty; choose another name or ask to overwrite")
    if marker is not None and not (target / marker).exists():
        raise SdvarError(
            f"will not overwrite {path}: it holds no {marker}, so it is something else; "
            "choose another name or remove it yourself"
        )


def check_free_space(path: StrPath, needed: int) -> None:
    """Raises if the file system that ``path`` would be written to lacks ``needed`` bytes.

    Args:
      path: the destination, which need not exist; its parent directory must.
      needed: size in bytes of what is going to be written.

    Raises:
      SdvarError: less than ``needed`` bytes are free, or the parent directory is missing.
    """
    _check_parent(path)
    free = shutil.disk_usage(_real(path).parent).free
    if free < needed:
        raise SdvarError(
            f"no space for {path}: it needs {needed / 2**20:,.0f} MiB and "
            f"{free / 2**20:,.0f} MiB are free; free some or write elsewhere"
        )


@contextlib.contextmanager
def atomic_file(path: StrPath) -> Iterator[Path]:
    """Yields an empty file to write to; it becomes ``path`` when the block ends well.

    The file handed out has the suffix of ``path``, for writers that go by it. A symbolic link at
    ``path`` stays and its target is replaced.

    Args:
      path: the destination; a regular file already there is replaced.

    Yields:
      The path to write to, in the directory of ``path``.

    Raises:
      SdvarError: the destination cannot be written (see :func:`check_file_destination`), or the
        block ran out of space or permissions.
    """
    check_file_destination(path)
    target = _real(path)
    aside = _aside(target)
    with _translated(path, aside):
        try:
            # Unlike tempfile.mkstemp this leaves the permissions to the user's umask.
            os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield aside
            os.replace(aside, target)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def atomic_directory(
    path: StrPath, overwrite: bool = False, *, marker: str | None = None
) -> Iterator[Path]:
    """Yields an empty directory to fill; it becomes ``path`` when the block ends well.

    Args:
      path: the destination. An empty directory already there is replaced.
      overwrite: whether a directory that holds something is replaced too. It stays untouched until
        the new one is complete.
      marker: see :func:`check_directory_destination`.

    Yields:
      The directory to fill, in the parent directory of ``path``.

    Raises:
      SdvarError: the destination may not be written (see :func:`check_directory_destination`), or
        the block ran out of space or permissions.
    """
    check_directory_destination(path, overwrite=overwrite, marker=marker)
    target = _real(path)
    aside = _aside(target)
    with _translated(path, aside):
        try:
            aside.mkdir()
            yield aside
            # Someone else may have made the destination in the meantime.
            check_directory_destination(path, overwrite=overwrite, marker=marker)
            _put_in_place(aside, target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise


def _put_in_place(aside: Path, target: Path) -> None:
    """Renames ``aside`` to ``target``; what stood there is back if that fails."""
    if not target.exists():
        aside.rename(target)
        return
    old = _aside(target)
    target.rename(old)
    try:
        aside.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _real(path: StrPath) -> Path:
    """The absolute path with symbolic links followed, so that renaming keeps the links."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def _aside(target: Path) -> Path:
    suffix = target.suffix if len(target.suffix) <= _LONGEST_SUFFIX else ""
    stem = target.stem[:_LONGEST_STEM]
    return target.with_name(f".{stem}.{secrets.token_hex(6)}.partial{suffix}")


def _check_parent(path: StrPath) -> None:
    if not os.fspath(path):
        raise SdvarError("cannot write to an empty path; give a name")
    target = _real(path)
    parent = target.parent
    if not parent.exists():
        raise SdvarError(f"cannot write {path}: the directory {parent} does not exist; make it")
    if not parent.is_dir():
        raise SdvarError(f"cannot write {path}: {parent} is not a directory")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise SdvarError(
            f"cannot write {path}: the directory {parent} is not writable; "
            "change its permissions or write elsewhere"
        )


@contextlib.contextmanager
def _translated(path: StrPath, aside: Path) -> Iterator[None]:
    """Turns what the operating system says about writing ``aside`` into one clear line."""
    try:
        yield
    except SdvarError:
        raise
    except Exception as error:
        message = _told(error, path, aside)
        if message is None:
            raise
        raise SdvarError(message) from error


def _told(error: Exception, path: StrPath, aside: Path) -> str | None:
    """The clear line for ``error``, or None when it is not about writing ``aside``."""
    full = f"cannot write {path}: no space left on the device or quota used up"
    if not isinstance(error, OSError):
        # Checkpoint writers in other languages report a full disk through exceptions of their own.
        return full if os.strerror(errno.ENOSPC) in str(error) else None
    if error.filename is not None and not _within(error.filename, aside):
        return None
    if error.errno in _FULL:
        return full
    if error.errno in _FORBIDDEN:
        return (
            f"cannot write {path}: {os.strerror(error.errno).lower()}; "
            "change the permissions or write elsewhere"
        )
    if error.errno in _OTHER_WRITE_ERRORS:
        return f"cannot write {path}: {os.strerror(error.errno).lower()}"
    return None


def _within(filename: str | bytes | int, aside: Path) -> bool:
    if isinstance(filename, int):
        return False
    name = Path(os.fsdecode(filename))
    return name == aside or aside in name.parents
