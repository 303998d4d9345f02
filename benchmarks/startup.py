"""Time from process start to the first image, cold and from the persistent compilation cache.

    python -m benchmarks.startup --target d30 --batch 1

Each run is a process of its own; the first one fills the cache that the second one reads.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import (
    add_run_options,
    add_size_options,
    check_outputs,
    run_command,
    run_settings,
)
from benchmarks.report import write_report
from benchmarks.results import Results
from sdvar_jax.errors import SdvarError

# What the child process is told: when its parent began it.
_BEGAN = "SDVAR_BENCHMARK_BEGAN"
_MARK = "first image: "


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__.splitlines()[0]
    )
    add_size_options(parser, several=False)
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="cache to use; without it one that starts empty"
    )
    add_run_options(parser)
    return parser


def first_image(options: argparse.Namespace, began: float) -> dict[str, Any]:
    """In the child: seconds of each step up to the first image, and the device.

    Weights come and programs are compiled at the same time.

    Args:
      options: the command line's; the first batch size counts.
      began: when the process was started, in seconds since the epoch.
    """
    import jax

    from benchmarks.command import random_models, sampling_config
    from benchmarks.random_models import target_config, vqvae_config
    from sdvar_jax.checkpoint import abstract_model
    from sdvar_jax.config import DTypePolicy
    from sdvar_jax.pipeline import Pipeline
    from sdvar_jax.runtime.memory import describe_devices

    steps = {"start_seconds": time.time() - began}
    jax.config.update("jax_compilation_cache_dir", str(options.cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    config, dtypes = target_config(options.target), DTypePolicy.of(options.dtype)
    planned = Pipeline(
        abstract_model(config, dtypes),
        abstract_model(vqvae_config(config), dtypes),
        kernels=options.kernels,
        weights=options.weights,
        filter_method=options.filter,
        default_sampling=sampling_config(options),
        cache=options.cache,
    )
    # As `sdvar sample` does it: compiled while the weights come.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        compiling = pool.submit(planned.compile, options.batch[0])
        start = time.perf_counter()
        models = random_models(options, options.target)
        steps["weights_seconds"] = time.perf_counter() - start
        pipeline = planned.with_models(models.target, models.vqvae)
        steps["trace_and_compile_seconds"] = compiling.result()
    start = time.perf_counter()
    pipeline.sample([0] * options.batch[0])
    steps["sample_seconds"] = time.perf_counter() - start
    steps["first_image_seconds"] = time.time() - began
    return {"device": describe_devices(), **steps}


def _run_child(options: argparse.Namespace, arguments: Sequence[str], cache: str) -> dict:
    command = [sys.executable, "-m", "benchmarks.startup", *arguments, "--cache", cache]
    environment = {**os.environ, _BEGAN: repr(time.time())}
    child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    for line in child.stdout.splitlines():
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    raise SdvarError(
        f"the process that samples from {options.target} ended with code {child.returncode} "
        "before its first image; its own message stands above"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """In the parent: runs the child twice."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = build_parser().parse_args(words)
    if _BEGAN in os.environ:
        print(_MARK + json.dumps(first_image(options, float(os.environ[_BEGAN]))), flush=True)
        return
    check_outputs(options)
    # The device is left to the child, so nothing here asks for it.
    results = Results({"settings": run_settings(options)}, options.json)
    with tempfile.TemporaryDirectory() as empty:
        cache = empty if options.cache is None else str(options.cache.absolute())
        cold = not Path(cache).exists() or not any(Path(cache).iterdir())
        for cached in (False, True):
            steps = _run_child(options, words, cache)
            name = "from the cache" if cached or not cold else "cold"
            results.add(
                "startup",
                target=options.target,
                batch=options.batch[0],
                compilation=name,
                **steps,
            )
    if options.markdown is not None:
        write_report(results, options.markdown)


if __name__ == "__main__":
    run_command(main)
