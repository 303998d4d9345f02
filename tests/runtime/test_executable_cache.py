"""Compiled programs as files: found by what they are made of, and never in the way."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdvar_jax.config import BFLOAT16, FLOAT32, VQVAEConfig
from sdvar_jax.decoding import DraftOnly, Handoff, TargetOnly
from sdvar_jax.decoding.speculative import Exact, Match, Speculative
from sdvar_jax.runtime import executable_cache
from sdvar_jax.runtime.executable_cache import ExecutableCache, fingerprint

KEY = "a" * 64


@pytest.fixture
def cache(tmp_path):
    return ExecutableCache(tmp_path / "cache" / "programs")


def compiled(factor):
    def program(numbers, *, extra):
        return {"product": factor * numbers["x"], "sum": numbers["x"] + extra}

    return jax.jit(program).lower({"x": jnp.ones(3)}, extra=jnp.ones(3)).compile()


def run(program, x):
    return program({"x": jnp.asarray(x)}, extra=jnp.ones(3))


def test_programs_come_back_as_they_went(cache):
    cache.write(KEY, {"twice": compiled(2.0), "thrice": compiled(3.0)})
    programs = ExecutableCache(cache.directory).read(KEY)
    assert list(programs) == ["twice", "thrice"]
    for name, factor in (("twice", 2.0), ("thrice", 3.0)):
        made = run(programs[name], [1.0, 2.0, 4.0])
        np.testing.assert_array_equal(made["product"], factor * np.asarray([1.0, 2.0, 4.0]))
        np.testing.assert_array_equal(made["sum"], [2.0, 3.0, 5.0])


def test_what_was_never_kept_is_not_there(cache):
    assert cache.read(KEY) is None
    assert not cache.directory.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
        lambda data: b"something else altogether, and longer than a digest",
    ],
    ids=["empty", "cut short", "one bit off", "foreign"],
)
def test_damaged_files_are_as_good_as_none(cache, damage):
    cache.write(KEY, {"twice": compiled(2.0)})
    (path,) = cache.directory.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert cache.read(KEY) is None
    cache.write(KEY, {"twice": compiled(2.0)})
    assert cache.read(KEY) is not None


def test_a_directory_that_cannot_be_made_keeps_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    cache = ExecutableCache(tmp_path / "file" / "programs")
    cache.write(KEY, {"twice": compiled(2.0)})
    assert cache.read(KEY) is None


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_directory_that_others_can_write_in_is_not_used(cache):
    cache.write(KEY, {"twice": compiled(2.0)})
    assert cache.directory.stat().st_mode & 0o777 == 0o700
    cache.directory.chmod(0o777)
    assert cache.read(KEY) is None
    cache.write("b" * 64, {"twice": compiled(2.0)})
    assert len(list(cache.directory.iterdir())) == 1


def test_what_was_not_used_for_the_longest_time_makes_room(cache, monkeypatch):
    program = {"twice": compiled(2.0)}
    for age, key in enumerate("abc"):
        cache.write(key, program)
        path = cache.directory / f"{key}.programs"
        os.utime(path, (1000 + age, 1000 + age))
    assert cache.read("a") is not None  # used now
    monkeypatch.setattr(executable_cache, "_MOST_BYTES", 3 * path.stat().st_size)
    cache.write("d", program)
    assert sorted(path.stem for path in cache.directory.iterdir()) == ["a", "c", "d"]


PARTS = (FLOAT32, VQVAEConfig(), Speculative(gamma=2, accept=Match()), (1, "x", None))


def test_a_fingerprint_is_the_same_for_the_same_parts():
    again = (FLOAT32, VQVAEConfig(), Speculative(gamma=2, accept=Match()), (1, "x", None))
    assert fingerprint(*PARTS) == fingerprint(*again)


@pytest.mark.parametrize(
    "other",
    [
        (BFLOAT16, *PARTS[1:]),
        (PARTS[0], VQVAEConfig(channels=32), *PARTS[2:]),
        (*PARTS[:2], Speculative(gamma=2, accept=Exact()), PARTS[3]),
        (*PARTS[:3], (1, "x", False)),
        PARTS[:3],
    ],
)
def test_and_another_for_others(other):
    assert fingerprint(*other) != fingerprint(*PARTS)


def test_settings_of_jax_and_xla_count(monkeypatch):
    before = fingerprint(1)
    with jax.default_matmul_precision("highest"):
        assert fingerprint(1) != before
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", "") + " --xla_dump_to=/nowhere")
    assert fingerprint(1) != before


def test_where_jax_keeps_its_own_programs_does_not_count(tmp_path):
    before = fingerprint(1)
    directory = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        assert fingerprint(1) == before
    finally:
        jax.config.update("jax_compilation_cache_dir", directory)


@pytest.mark.parametrize(
    "decoder",
    [TargetOnly(), DraftOnly(), Handoff(entry=2), Speculative(), Speculative(gamma="adaptive")],
)
def test_decoders_of_the_package_can_be_told_by_their_fields(decoder):
    assert fingerprint(decoder) is not None


def test_what_comes_from_elsewhere_cannot():
    @dataclasses.dataclass(frozen=True)
    class Own:
        strictness: float = 1.0

    assert fingerprint(Own()) is None
    assert fingerprint(lambda: 0) is None
    assert fingerprint((1, [Own()])) is None


def test_where_kernels_find_what_they_call_is_known_again(cache, monkeypatch):
    """The language that they are written in says so when it is imported, and here it is not."""
    monkeypatch.setenv("MOSAIC_GPU_RUNTIME_LIB_PATH", "where it was")
    monkeypatch.setenv("MOSAIC_GPU_CUDA_ROOT", "where that was")
    cache.write(KEY, {"twice": compiled(2.0)})
    monkeypatch.delenv("MOSAIC_GPU_RUNTIME_LIB_PATH")
    monkeypatch.setenv("MOSAIC_GPU_CUDA_ROOT", "where it is wanted")
    assert cache.read(KEY) is not None
    assert os.environ["MOSAIC_GPU_RUNTIME_LIB_PATH"] == "where it was"
    assert os.environ["MOSAIC_GPU_CUDA_ROOT"] == "where it is wanted"
