"""JAX's persistent compilation cache, so that a program compiles once and not at every start."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.monitoring

# Whatever takes longer than this to compile is kept; below it, reading the cache gains little.
_MIN_COMPILE_SECONDS = 0.5
_DIRECTORY_SETTING = "jax_compilation_cache_dir"
# Events that JAX tells of: the duration covers programs that the cache has as well.
_ASKED = "/jax/core/compile/backend_compile_duration"
_GIVEN = "/jax/compilation_cache/cache_hits"


def compilation_cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Where compiled programs are kept.

    Args:
      environ: environment variables. ``SDVAR_CACHE_DIR`` is our own cache directory; without it
        ``XDG_CACHE_HOME``, and last ``~/.cache``, is the directory that all programs share.

    Returns:
      The absolute path of the directory, which need not exist.
    """
    own = environ.get("SDVAR_CACHE_DIR")
    if own:
        return Path(own).expanduser().absolute() / "compiled"
    shared = Path(environ.get("XDG_CACHE_HOME", ""))
    # The XDG rules say to ignore a relative path.
    if not shared.is_absolute():
        shared = Path.home() / ".cache"
    return shared / "sdvar_jax" / "compiled"


def enable_compilation_cache(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Turns the persistent compilation cache on; call it before anything is compiled.

    A cache that JAX was already told to use (``JAX_COMPILATION_CACHE_DIR`` or the configuration)
    is left as it is. A cache directory that cannot be made or written costs time but nothing else,
    so it is no error.

    Args:
      environ: environment variables; ``SDVAR_NO_COMPILATION_CACHE=1`` leaves the cache off, and
        see :func:`compilation_cache_dir`.

    Returns:
      The directory in use, or None if there is no cache.
    """
    if environ.get("SDVAR_NO_COMPILATION_CACHE", "0").strip().lower() not in ("", "0", "false"):
        return None
    chosen = getattr(jax.config, _DIRECTORY_SETTING)
    if chosen:
        return Path(chosen)
    directory = compilation_cache_dir(environ)
    try:
        # The cache holds programs that will be run: nobody else should be able to write there.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(directory, os.W_OK | os.X_OK):
        return None
    jax.config.update(_DIRECTORY_SETTING, str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return directory


@dataclasses.dataclass
class CompilerWork:
    """What was asked of the compiler.

    Attributes:
      asked: programs that were not in memory already.
      given: those of them that the cache had.
    """

    asked: int = 0
    given: int = 0

    @property
    def compiled_all(self) -> bool:
        """Whether there was something to compile, and the cache had nothing of it."""
        return self.asked > 0 and self.given == 0


_watching = threading.local()


@contextlib.contextmanager
def compiler_watched() -> Iterator[CompilerWork]:
    """What this thread asks of the compiler in the block, complete when it ends."""
    _listen()
    _watching.work = work = CompilerWork()
    try:
        yield work
    finally:
        _watching.work = None


@functools.cache
def _listen() -> None:
    """Counts from now on; for good, since listeners that come and go make JAX pass others over."""

    def of_this_thread() -> CompilerWork | None:
        return getattr(_watching, "work", None)

    def on_event(event: str, **_: Any) -> None:
        work = of_this_thread()
        if work is not None and event == _GIVEN:
            work.given += 1

    def on_duration(event: str, duration_secs: float, **_: Any) -> None:
        work = of_this_thread()
        if work is not None and event == _ASKED:
            work.asked += 1

    jax.monitoring.register_event_listener(on_event)
    jax.monitoring.register_event_duration_secs_listener(on_duration)
