"""Output directories that programs fill file by file."""

from __future__ import annotations

import os
from pathlib import Path

from sdvar_jax.errors import SdvarError


def ensure_directory(path: str | os.PathLike[str]) -> Path:
    """Makes ``path`` and its parents where they are missing, and checks that it can be written.

    Args:
      path: the directory; a leading ``~`` is the home.

    Returns:
      The directory's path.

    Raises:
      SdvarError: a part of the path is not a directory, or it cannot be made or written.
    """
    directory = Path(path).expanduser()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SdvarError(
            f"cannot write into {path}: it, or a part of it, is a file and not a directory"
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SdvarError(f"cannot make the directory {path}: {reason}") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise SdvarError(
            f"cannot write into {path}: the directory is not writable; "
            "change its permissions or write elsewhere"
        )
    return directory
