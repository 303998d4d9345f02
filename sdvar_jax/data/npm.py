"""Fetching the openly licensed emoji packages with the ``npm`` program."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sdvar_jax.errors import SdvarError

# Versions are fixed so that everyone prepares the same pictures.
EMOJI_PACKAGES = (
    "@iconify-json/emojione@1.2.3",
    "@iconify-json/fluent-emoji-flat@1.2.6",
    "@iconify-json/noto@1.2.9",
    "@iconify-json/twemoji@1.2.5",
)

_TIMEOUT_S = 300


def fetch_packages(directory: Path, packages: Sequence[str] = EMOJI_PACKAGES) -> tuple[Path, ...]:
    """Packs each package into ``directory`` and returns the archives in the given order.

    Args:
      directory: an existing directory.
      packages: package names, with or without ``@version``.

    Raises:
      SdvarError: ``npm`` is not installed or could not fetch a package.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise SdvarError(
            "npm was not found, which fetches the emoji packages; install Node.js, or fetch "
            f"{', '.join(packages)} elsewhere with 'npm pack' and give the .tgz files"
        )
    return tuple(_fetch(npm, package, directory) for package in packages)


def _fetch(npm: str, package: str, directory: Path) -> Path:
    before = set(directory.glob("*.tgz"))
    command = [npm, "pack", package, "--pack-destination", str(directory), "--silent"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SdvarError(f"npm could not fetch {package}: {error}") from error
    made = set(directory.glob("*.tgz")) - before
    if done.returncode != 0 or len(made) != 1:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise SdvarError(
            f"npm could not fetch {package} ({said[-1] if said else 'no message'}); check the "
            "network, or give archives packed elsewhere"
        )
    return made.pop()
