"""The persistent compilation cache: where it is, and that a second process profits from it."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import jax
import pytest
from jax_cache import jaxs_cache_in

from sdvar_jax.runtime.compilation_cache import (
    CompilerWork,
    compilation_cache_dir,
    compiler_watched,
    enable_compilation_cache,
)

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def no_cache_configured():
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_directory_follows_our_variable_then_xdg_then_the_home(tmp_path):
    both = {"SDVAR_CACHE_DIR": str(tmp_path / "own"), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
    assert compilation_cache_dir(both) == tmp_path / "own" / "compiled"
    xdg = {"XDG_CACHE_HOME": str(tmp_path / "xdg")}
    assert compilation_cache_dir(xdg) == tmp_path / "xdg" / "sdvar_jax" / "compiled"
    home = Path.home() / ".cache" / "sdvar_jax" / "compiled"
    assert compilation_cache_dir({}) == home
    assert compilation_cache_dir({"XDG_CACHE_HOME": "relative"}) == home


@pytest.mark.usefixtures("no_cache_configured")
def test_it_is_on_by_default_and_keeps_what_takes_half_a_second(tmp_path):
    directory = enable_compilation_cache({"SDVAR_CACHE_DIR": str(tmp_path)})
    assert directory == tmp_path / "compiled"
    assert directory.is_dir()
    assert jax.config.jax_compilation_cache_dir == str(directory)
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.5
    assert jax.config.jax_persistent_cache_min_entry_size_bytes == 0


@pytest.mark.usefixtures("no_cache_configured")
def test_one_variable_turns_it_off(tmp_path):
    off = {"SDVAR_CACHE_DIR": str(tmp_path), "SDVAR_NO_COMPILATION_CACHE": "1"}
    assert enable_compilation_cache(off) is None
    assert jax.config.jax_compilation_cache_dir is None
    assert list(tmp_path.iterdir()) == []
    assert enable_compilation_cache(off | {"SDVAR_NO_COMPILATION_CACHE": "0"}) is not None


@pytest.mark.usefixtures("no_cache_configured")
def test_a_cache_that_jax_was_told_to_use_is_left_alone(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    directory = enable_compilation_cache({"SDVAR_CACHE_DIR": str(tmp_path / "ours")})
    assert directory == tmp_path / "theirs"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_cache_configured")
def test_a_directory_that_cannot_be_made_means_no_cache_and_no_error(tmp_path):
    (tmp_path / "file").touch()
    assert enable_compilation_cache({"SDVAR_CACHE_DIR": str(tmp_path / "file")}) is None
    assert jax.config.jax_compilation_cache_dir is None


def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    program = textwrap.dedent(
        """
        import jax, jax.numpy as jnp
        from sdvar_jax.runtime.compilation_cache import enable_compilation_cache

        events = []
        jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
        enable_compilation_cache()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))).block_until_ready()
        print(events.count("/jax/compilation_cache/cache_hits"))
        """
    )
    environ = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environ |= {"SDVAR_CACHE_DIR": str(tmp_path)}
    hits = [
        int(subprocess.run([sys.executable, "-c", program], env=environ, stdout=-1).stdout)
        for _ in range(2)
    ]
    assert hits[0] == 0
    assert hits[1] > 0


def test_what_is_asked_of_the_compiler_is_counted(tmp_path):
    program = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((3,), "float32"))
    again = jax.jit(lambda x: x + 1).lower(jax.ShapeDtypeStruct((3,), "float32"))
    seen = []
    with jaxs_cache_in(tmp_path):
        for lowered in (program, program, again):
            with compiler_watched() as work:
                lowered.compile()
            seen.append((work.asked, work.given, work.compiled_all))
    assert seen == [(1, 0, True), (0, 0, False), (1, 1, False)]


def test_what_other_threads_ask_is_not():
    with compiler_watched() as work:
        thread = threading.Thread(target=lambda: jax.jit(lambda x: x + 2).lower(1.0).compile())
        thread.start()
        thread.join()
    assert work == CompilerWork()
