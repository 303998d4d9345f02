"""What this device can do: memory bandwidth and matrix rates, measured on random data.

python -m benchmarks.ceilings --json ceilings.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from benchmarks.command import add_output_options, check_outputs, run_command, run_context
from benchmarks.report import write_report
from benchmarks.results import Results
from benchmarks.timing import measure
from benchmarks.work import Ceilings
from sdvar_jax.config import DTypePolicy
from sdvar_jax.errors import SdvarError

# Well beyond any cache, and well beyond any launch.
_COPY_BYTES = {"cpu": 1 << 28}
_DEFAULT_COPY_BYTES = 1 << 32
_SIDE = {"cpu": 1024}
_DEFAULT_SIDE = 8192
_PASSES = 8


def copy_rate(size: int, repeats: int) -> float:
    """Bytes read plus written a second by a copy of ``size`` bytes that changes every element."""
    numbers = jax.random.normal(jax.random.key(0), (size // 4,), jnp.float32)
    # Adding to every element keeps the copy from being left out.
    copy = jax.jit(lambda numbers, added: numbers + added)
    timing = measure(lambda: copy(numbers, 1.0), repeats)
    return 2.0 * numbers.nbytes / timing.seconds


def matmul_rate(side: int, dtype: DTypeLike, repeats: int) -> float:
    """Operations a second of square products of random matrices, one after the other."""
    keys = jax.random.split(jax.random.key(1), 2)
    scale = side**-0.5
    first, second = (jax.random.normal(key, (side, side), jnp.float32) for key in keys)
    first, second = first.astype(dtype), (scale * second).astype(dtype)

    @jax.jit
    def products(first: jax.Array, second: jax.Array) -> jax.Array:
        for _ in range(_PASSES):
            # Each product is the next one's operand, and its entries stay near one.
            first = jnp.matmul(first, second).astype(dtype)
        return first

    timing = measure(lambda: products(first, second), repeats)
    return 2.0 * side**3 * _PASSES / timing.seconds


def measure_ceilings(dtype: DTypeLike, repeats: int = 10) -> Ceilings:
    """Measures the first device.

    Args:
      dtype: of the transformer's arithmetic.
      repeats: measured calls.
    """
    platform = jax.devices()[0].platform
    side = _SIDE.get(platform, _DEFAULT_SIDE)
    return Ceilings(
        bytes_per_second=copy_rate(_COPY_BYTES.get(platform, _DEFAULT_COPY_BYTES), repeats),
        flops_per_second=matmul_rate(side, dtype, repeats),
        float32_flops_per_second=matmul_rate(side, jnp.float32, repeats),
    )


def read_ceilings(path: Path) -> Ceilings:
    """What ``python -m benchmarks.ceilings --json`` wrote."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["records"]
        record = next(record for record in records if record["kind"] == "ceilings")
        return Ceilings(**{f.name: record[f.name] for f in dataclasses.fields(Ceilings)})
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise SdvarError(
            f"{path} holds no ceilings; write it with python -m benchmarks.ceilings --json {path}"
        ) from error


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ceilings", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--dtype", default="bfloat16", help="default: %(default)s")
    parser.add_argument("--repeats", type=int, default=10, help="default: %(default)s")
    add_output_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    options = build_parser().parse_args(arguments)
    dtypes = DTypePolicy.of(options.dtype)
    check_outputs(options)
    results = Results(run_context(options), options.json)
    ceilings = measure_ceilings(dtypes.compute_dtype, options.repeats)
    results.add("ceilings", **dataclasses.asdict(ceilings))
    if options.markdown is not None:
        write_report(results, options.markdown)


if __name__ == "__main__":
    run_command(main)
