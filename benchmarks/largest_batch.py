"""The largest batch that fits on the device, by what the compiled programs say they need.

python -m benchmarks.largest_batch --target d30 --json largest.json
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from benchmarks.command import (
    add_run_options,
    check_outputs,
    positive,
    random_models,
    run_command,
    run_context,
    sampling_config,
)
from benchmarks.programs import Program, compile_program, lower_whole
from benchmarks.random_models import SIZES
from benchmarks.report import write_report
from benchmarks.results import Results
from sdvar_jax.config.validation import require
from sdvar_jax.decoding import Request, TargetOnly, make_request
from sdvar_jax.pipeline import Pipeline


def largest_batch(
    bytes_of: Callable[[int], int], limit: int, *, start: tuple[int, int] = (1, 8), tries: int = 8
) -> int:
    """The largest batch whose bytes stay within the limit.

    Memory grows nearly linearly with the batch, so each guess follows from the line through the two
    nearest measured ones, and few are needed.

    Args:
      bytes_of: what a batch needs; grows with it.
      limit: what there is.
      start: the first two batches to measure.
      tries: how many more to measure at the most.

    Returns:
      The largest batch measured that fits; 0 where the first does not. The next larger one that was
      measured does not fit, and unless ``tries`` were spent lies within 1 / 64.
    """
    measured = {batch: bytes_of(batch) for batch in start}
    for _ in range(tries):
        fits = [b for b, size in measured.items() if size <= limit]
        fails = [b for b, size in measured.items() if size > limit]
        low = max(fits, default=0)
        high = min(fails, default=None)
        if high is not None and high - low <= max(1, low // 64):
            break
        one, other = sorted(sorted(measured, key=lambda b: abs(measured[b] - limit))[:2])
        slope = (measured[other] - measured[one]) / (other - one)
        guess = int(one + (limit - measured[one]) / slope) if slope > 0 else 2 * other
        guess = max(guess, low + 1)
        if high is not None:
            guess = min(guess, high - 1)
        measured[guess] = bytes_of(guess)
    return max((b for b, size in measured.items() if size <= limit), default=0)


def device_limit() -> int | None:
    """Bytes that this process may use on the device, where the device tells."""
    stats = jax.local_devices()[0].memory_stats()
    return None if not stats else stats.get("bytes_limit")


def held_elsewhere(program: Program) -> int:
    """Bytes in use on the device that are no argument of the program; 0 where it does not tell."""
    stats = jax.local_devices()[0].memory_stats()
    return max(stats["bytes_in_use"] - program.weight_bytes, 0) if stats else 0


def proved(
    bytes_of: Callable[[int], int], call: Callable[[int], Any], limit: int, *, tries: int = 8
) -> tuple[int, bool]:
    """The largest batch that fits by its bytes and runs.

    What is free may not lie in one piece: a batch that runs out of memory lowers the limit by a
    32nd, three times at the most.

    Args:
      bytes_of: see ``largest_batch``.
      call: runs a batch.
      limit: what there is.
      tries: see ``largest_batch``.

    Returns:
      The batch, 0 where none fits, and whether it ran.
    """
    found = 0
    for _ in range(4):
        found = largest_batch(bytes_of, limit, tries=tries)
        if not found:
            break
        try:
            jax.block_until_ready(call(found))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            limit = min(limit, bytes_of(found)) * 31 // 32
        else:
            return found, True
    return found, False


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.largest_batch", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--target", choices=SIZES, default="d30", help="size (default: d30)")
    parser.add_argument(
        "--memory", type=float, metavar="GIB", help="of the device (default: what it tells)"
    )
    parser.add_argument(
        "--tries", type=positive, default=8, help="programs to compile beyond the first two"
    )
    add_run_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Finds it, and proves it with one call."""
    check_outputs(options)
    limit = int(options.memory * 2**30) if options.memory is not None else device_limit()
    require(limit is not None, "this device does not tell its memory; say it with --memory GIB")
    assert limit is not None
    results = Results(run_context(options), options.json)
    models = random_models(options, options.target)
    pipeline = Pipeline(
        models.target, models.vqvae, kernels=options.kernels, filter_method=options.filter
    )
    sampling = sampling_config(options)
    config = models.target.config

    def request_of(batch: int) -> Request:
        labels = np.arange(batch) % config.num_classes
        return make_request(labels, options.seed, sampling, config.pyramid)

    programs: dict[int, Program] = {}

    @functools.cache
    def bytes_of(batch: int) -> int:
        programs[batch] = compile_program(
            functools.partial(lower_whole, pipeline, TargetOnly(), sampling, request_of(batch))
        )
        size = programs[batch].memory_bytes
        require(size is not None, "the compiler does not tell what a program needs here")
        assert size is not None
        results.add("program", target=options.target, batch=batch, program_bytes=size)
        return size

    bytes_of(1)
    limit -= held_elsewhere(programs[1])
    found, ran = proved(
        bytes_of,
        lambda batch: programs[batch](request=request_of(batch)),
        limit,
        tries=options.tries,
    )
    results.add(
        "largest batch", target=options.target, batch=found, limit_bytes=limit, ran_through=ran
    )
    if options.markdown is not None:
        write_report(results, options.markdown)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Finds the largest batch."""
    run(build_parser().parse_args(arguments))


if __name__ == "__main__":
    run_command(main)
