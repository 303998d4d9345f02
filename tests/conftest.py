"""Options, skips and JAX settings for all tests.

Everything JAX needs is set through environment variables before JAX is imported, so that it holds
for programs that tests start as well.
"""

import gc
import importlib.util
import os
import sys
from pathlib import Path

import pytest

VIRTUAL_DEVICES = 8

# Compiled programs lie in memory mappings, some five each, and Linux ends a process that asks for
# more than 65,530 of them (``vm.max_map_count``): thousands of tests would.
MOST_MAPPINGS = 25_000


def pytest_addoption(parser):
    group = parser.getgroup("sdvar_jax")
    group.addoption("--run-slow", action="store_true", help="run the tests that take minutes")
    group.addoption(
        "--run-accelerator",
        action="store_true",
        help="let JAX use a GPU or TPU, and run the tests that need one",
    )
    group.addoption(
        "--var-repo",
        type=Path,
        metavar="PATH",
        help="checkout of the original PyTorch VAR, for the live parity tests",
    )
    group.addoption(
        "--var-ckpt", type=Path, metavar="FILE", help="VAR checkpoint for the live parity tests"
    )
    group.addoption(
        "--vae-ckpt", type=Path, metavar="FILE", help="VQVAE checkpoint for the live parity tests"
    )


def pytest_configure(config):
    _check_paths(config)
    if "jax" in sys.modules:
        raise pytest.UsageError("JAX was imported before the tests could choose its settings")
    if not config.getoption("--run-accelerator"):
        os.environ["JAX_PLATFORMS"] = "cpu"
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        flags = f"{flags} --xla_force_host_platform_device_count={VIRTUAL_DEVICES}"
        os.environ["XLA_FLAGS"] = flags.strip()
    # A silent broadcast over a missing axis is a bug more often than not.
    os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
    _use_compilation_cache_of_the_tests(config)


def _check_paths(config):
    repo = config.getoption("--var-repo")
    if repo is not None and not repo.is_dir():
        raise pytest.UsageError(f"--var-repo: {repo} is not a directory")
    for option in ("--var-ckpt", "--vae-ckpt"):
        file = config.getoption(option)
        if file is not None and not file.is_file():
            raise pytest.UsageError(f"{option}: {file} is not a file")
        if file is not None and repo is None:
            raise pytest.UsageError(f"{option} needs --var-repo PATH as well")


def _use_compilation_cache_of_the_tests(config):
    """Compiled programs live in pytest's cache directory, never in the user's."""
    cache = getattr(config, "cache", None)
    if cache is None:  # pytest -p no:cacheprovider
        return
    directory = cache.mkdir("jax") / os.environ.get("PYTEST_XDIST_WORKER", "main")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(directory)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    # A test run killed while writing leaves a damaged entry; JAX then compiles afresh.
    config.addinivalue_line(
        "filterwarnings", "ignore:Error (reading|writing) persistent compilation cache entry"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Collects without garbage collection.

    Early versions of Python 3.11 fail with "AST constructor recursion depth mismatch" where it runs
    a callback (JAX registers one) while a test file is being parsed.
    """
    del session
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_modifyitems(config, items):
    skips = {}
    if not config.getoption("--run-slow"):
        skips["slow"] = "takes minutes: pass --run-slow"
    if not config.getoption("--run-accelerator"):
        skips["accelerator"] = "needs a GPU or TPU: pass --run-accelerator"
    if importlib.util.find_spec("torch") is None:
        skips["torch"] = "needs PyTorch: install torch (the CPU build is enough)"
    for item in items:
        for marker, reason in skips.items():
            if item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def accelerator():
    """The GPU or TPU that JAX found; its absence is an error once --run-accelerator is given."""
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        pytest.fail("--run-accelerator was given, but JAX finds no GPU or TPU")
    return device


@pytest.fixture(autouse=True)
def _accelerator_is_there(request):
    if request.node.get_closest_marker("accelerator") is not None:
        request.getfixturevalue("accelerator")


@pytest.fixture(autouse=True)
def _fresh_chex_trace_counter():
    """Tests that count traces start from zero, whatever ran before."""
    yield
    if "chex" in sys.modules:
        sys.modules["chex"].clear_trace_counter()


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """Forgets compiled programs before the process has no room for more."""
    yield
    if "jax" in sys.modules and _mappings() > MOST_MAPPINGS:
        sys.modules["jax"].clear_caches()
        gc.collect()


def _mappings():
    """Memory mappings of this process; zero where the system does not tell."""
    try:
        with Path("/proc/self/maps").open("rb") as maps:
            return sum(1 for _ in maps)
    except OSError:
        return 0


def _path_or_skip(request, option, needed):
    path = request.config.getoption(option)
    if path is None:
        pytest.skip(f"needs {needed}: pass {option}")
    return path.resolve()


@pytest.fixture(scope="session")
def var_repo(request):
    """Path of the user's checkout of the original PyTorch VAR."""
    return _path_or_skip(request, "--var-repo", "a checkout of the original PyTorch VAR")


@pytest.fixture(scope="session")
def var_ckpt(request):
    """Path of a VAR checkpoint of the original."""
    return _path_or_skip(request, "--var-ckpt", "a VAR checkpoint of the original")


@pytest.fixture(scope="session")
def vae_ckpt(request):
    """Path of a VQVAE checkpoint of the original."""
    return _path_or_skip(request, "--vae-ckpt", "a VQVAE checkpoint of the original")
