"""Compiled programs as files, found by what they were made of and not by what they are.

JAX's persistent cache finds a program by its lowered text, so that each start traces and lowers all
of it anew: seconds for a large model. Here a program is found by the package's sources, versions,
device and settings, and nothing is traced. Whatever does not fit is compiled as if nothing were
kept: a missing, foreign or damaged file is no error.

The files hold pickles and executables: who can write them decides what runs. A directory that
others can write in is not used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pickle
import platform
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental import serialize_executable

from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import atomic_file

_PACKAGE = "sdvar_jax"
_LIBRARIES = ("jax", "jaxlib", "flax", "chex", "numpy")
_SUFFIX = ".programs"
# Bytes of all files; beyond it those go that were not used for the longest time.
_MOST_BYTES = 2 * 10**9
_DEFAULT_DEVICE = "jax_default_device"
# Settings of JAX that say where things are kept and written, and not what is compiled.
_OF_NO_ACCOUNT = ("cache", "dump", "log", "profiler")
# Folders of the package that no program of sampling comes from.
_ELSEWHERE = ("cli", "data", "editing", "evaluation", "imaging", "training")
# Where kernels of Mosaic find what they call: its language says so when it is imported, which
# nothing does where nothing is traced.
_KERNEL_PATHS = "MOSAIC_GPU_"
_PLAIN = (str, bytes, int, float, bool, type(None))


class ExecutableCache:
    """The files of a directory.

    Attributes:
      directory: need not exist.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, key: str) -> dict[str, Any] | None:
        """The programs of a key, by name and ready to run; None where they are not kept.

        Args:
          key: a ``fingerprint``.
        """
        path = self.directory / (key + _SUFFIX)
        try:
            if not self._is_private():
                return None
            digest, content = _parted(path.read_bytes())
            if hashlib.sha256(content).digest() != digest:
                return None
            paths, executables = pickle.loads(content)
            for name, place in paths.items():
                os.environ.setdefault(name, place)
            device = jax.devices()[:1]
            programs = {
                name: serialize_executable.deserialize_and_load(
                    executable, taken, made, execution_devices=device
                )
                for name, (executable, taken, made) in executables.items()
            }
            os.utime(path)  # used now
        except Exception:  # Unpickling and loading raise whatever they like.
            return None
        return programs

    def write(self, key: str, programs: Mapping[str, jax.stages.Compiled]) -> None:
        """Keeps programs; what cannot be kept or written is left.

        Args:
          key: a ``fingerprint``.
          programs: by name; compiled in this process, and not run yet.
        """
        try:
            executables = {
                name: serialize_executable.serialize(each) for name, each in programs.items()
            }
            content = pickle.dumps((_kernel_paths(), executables))
        except Exception:  # A backend that cannot raises whatever it likes.
            return
        with contextlib.suppress(OSError, SdvarError):
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return
            with atomic_file(self.directory / (key + _SUFFIX)) as aside:
                aside.write_bytes(hashlib.sha256(content).digest() + content)
            self._make_room()

    def _is_private(self) -> bool:
        """Whether nobody else can put files there."""
        if os.name != "posix":
            return True
        status = self.directory.stat()
        others = stat.S_IWGRP | stat.S_IWOTH
        return status.st_uid == os.getuid() and not status.st_mode & others

    def _make_room(self) -> None:
        """Removes what was not used for the longest time."""
        files = [(path.stat(), path) for path in self.directory.glob("*" + _SUFFIX)]
        held = sum(status.st_size for status, _ in files)
        for status, path in sorted(files, key=lambda file: file[0].st_mtime):
            if held <= _MOST_BYTES:
                return
            path.unlink(missing_ok=True)
            held -= status.st_size


def _kernel_paths() -> dict[str, str]:
    """By the variables that name them."""
    return {name: value for name, value in os.environ.items() if name.startswith(_KERNEL_PATHS)}


def _parted(data: bytes) -> tuple[bytes, bytes]:
    """Digest and content."""
    size = hashlib.sha256().digest_size
    return data[:size], data[size:]


def on_first_device(arrays: Any) -> bool:
    """Whether all arrays of a pytree are where kept programs run: in the first device's memory.

    Shapes that say nothing of it stand for the default device.
    """
    first = jax.devices()[0]
    kinds = (None, first.default_memory().kind)
    places = (getattr(leaf, "sharding", None) for leaf in jax.tree.leaves(arrays))
    return getattr(jax.config, _DEFAULT_DEVICE) in (None, first) and all(
        place is None or (place.device_set == {first} and place.memory_kind in kinds)
        for place in places
    )


def fingerprint(*parts: Any) -> str | None:
    """A name for what is compiled of ``parts`` here; None where they do not tell all of it.

    Args:
      *parts: plain values, tuples and lists, and dataclasses of this package. A class from
        elsewhere may change without its values doing so.
    """
    if not all(_tells_all(part) for part in parts):
        return None
    described = repr((_surroundings(), _settings(), parts))
    return hashlib.sha256(described.encode()).hexdigest()


def _tells_all(value: Any) -> bool:
    """Whether the text of a value says all that a program could be made of."""
    if isinstance(value, _PLAIN):
        return True
    if isinstance(value, tuple | list):
        return all(_tells_all(each) for each in value)
    if not dataclasses.is_dataclass(value) or type(value).__module__.split(".")[0] != _PACKAGE:
        return False
    fields = dataclasses.fields(value)
    return all(each.repr and _tells_all(getattr(value, each.name)) for each in fields)


@functools.cache
def _surroundings() -> tuple[Any, ...]:
    """Sources, versions and device."""
    device = jax.devices()[0]
    return (
        _sources(),
        platform.python_version(),
        [(library, importlib.metadata.version(library)) for library in _LIBRARIES],
        (device.platform, device.device_kind, device.id, device.client.platform_version),
        _instructions() if device.platform == "cpu" else "",
        jax.process_count(),
    )


def _settings() -> tuple[Any, ...]:
    """Settings of JAX and XLA that may change a program; this package's stand in its sources."""
    names = sorted(
        name for name in jax.config.values if not any(part in name for part in _OF_NO_ACCOUNT)
    )
    return (
        [(name, str(getattr(jax.config, name, None))) for name in names],
        [os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")],
    )


def _sources() -> str:
    """Digest of this package's modules, but for those that have no part in sampling."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if place.parts[0] not in _ELSEWHERE:
            digest.update(place.as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _instructions() -> str:
    """What this processor can do: programs are compiled for it and not for its kind."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return f"{platform.machine()} {platform.processor()}"
