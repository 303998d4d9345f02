"""The floor under a run's time: the least bytes and operations over what the device can do.

python -m benchmarks.floor --target d30 --batch 1 32 --measure
python -m benchmarks.floor --target d30 --bandwidth 4.3e12 --flops 790e12 --float32-flops 400e12
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp

from benchmarks.ceilings import measure_ceilings, read_ceilings
from benchmarks.command import add_output_options, check_outputs, positive, run_command
from benchmarks.random_models import SIZES, target_config, vqvae_config
from benchmarks.results import Results, markdown_table
from benchmarks.work import Ceilings, Work, decode_work, forward_work, modulation_work
from sdvar_jax.config import DTypePolicy, VARConfig, VQVAEConfig
from sdvar_jax.config.validation import require
from sdvar_jax.models.var.quantized import FLOAT, INT8, WEIGHTS
from sdvar_jax.runtime.atomic import atomic_file


@dataclasses.dataclass(frozen=True)
class Floor:
    """The least a sequential run can take, in seconds.

    Attributes:
      modulations: once an image.
      scales: the forward of each scale.
      memory: of all scales, moving the bytes alone.
      arithmetic: of all scales, the operations alone.
      images: the VQVAE's decoder.
    """

    modulations: float
    scales: tuple[float, ...]
    memory: float
    arithmetic: float
    images: float

    @property
    def transformer(self) -> float:
        """Modulations and all forwards."""
        return self.modulations + sum(self.scales)

    @property
    def total(self) -> float:
        """From class labels to images."""
        return self.transformer + self.images

    def fields(self) -> dict[str, float | list[float]]:
        """As a result's fields."""
        return {
            "modulations_seconds": self.modulations,
            "memory_seconds": self.memory,
            "arithmetic_seconds": self.arithmetic,
            "transformer_seconds": self.transformer,
            "images_seconds": self.images,
            "total_seconds": self.total,
            "scales": list(self.scales),
        }


def sequential_floor(
    config: VARConfig,
    vqvae: VQVAEConfig,
    batch: int,
    ceilings: Ceilings,
    *,
    guided: bool = True,
    itemsize: int = 2,
    block_itemsize: int | None = None,
) -> Floor:
    """The floor of making all scales one by one with one model.

    Args:
      config: of the transformer.
      vqvae: of the VQVAE.
      batch: images.
      ceilings: of the device.
      guided: whether the batch is doubled.
      itemsize: bytes of a parameter.
      block_itemsize: bytes of a parameter of the blocks; None where they are as all others.
    """
    rows = 2 * batch if guided else batch
    works = [
        forward_work(config, scale, scale + 1, rows, itemsize, block_itemsize)
        for scale in range(config.pyramid.num_scales)
    ]
    together = sum(works, start=Work())
    return Floor(
        modulations=modulation_work(config, rows, itemsize).seconds(ceilings),
        scales=tuple(work.seconds(ceilings) for work in works),
        memory=together.memory_seconds(ceilings),
        arithmetic=together.arithmetic_seconds(ceilings),
        images=decode_work(vqvae, batch, itemsize).seconds(ceilings),
    )


COLUMNS = {
    "target": "model",
    "batch": "batch",
    "modulations_seconds": "modulations",
    "memory_seconds": "scales, bytes alone",
    "arithmetic_seconds": "scales, operations alone",
    "transformer_seconds": "transformer",
    "images_seconds": "images",
    "total_seconds": "total",
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.floor", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--target", nargs="+", choices=SIZES, default=["d30"])
    parser.add_argument("--batch", nargs="+", type=positive, default=[1])
    parser.add_argument("--dtype", default="bfloat16", help="default: %(default)s")
    parser.add_argument(
        "--weights", choices=WEIGHTS, default=FLOAT, help="of the blocks (default: %(default)s)"
    )
    parser.add_argument("--no-guidance", action="store_true", help="the batch is not doubled")
    parser.add_argument("--measure", action="store_true", help="measure the device's ceilings")
    parser.add_argument("--ceilings", type=Path, metavar="FILE", help="read measured ceilings")
    parser.add_argument("--bandwidth", type=float, metavar="BYTES_PER_SECOND")
    parser.add_argument("--flops", type=float, metavar="FLOPS_PER_SECOND")
    parser.add_argument(
        "--float32-flops",
        type=float,
        metavar="FLOPS_PER_SECOND",
        help="of the head; as --flops if left out",
    )
    add_output_options(parser)
    return parser


def _ceilings(options: argparse.Namespace, dtypes: DTypePolicy) -> Ceilings:
    """Given, read or measured."""
    given = options.bandwidth is not None and options.flops is not None
    ways = (options.measure, options.ceilings is not None, given)
    require(
        sum(ways) == 1,
        "say what the device can do, in one way: --measure, --ceilings FILE, or --bandwidth with "
        "--flops",
    )
    if options.measure:
        return measure_ceilings(dtypes.compute_dtype)
    if options.ceilings is not None:
        return read_ceilings(options.ceilings)
    return Ceilings(options.bandwidth, options.flops, options.float32_flops or options.flops)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the floors."""
    options = build_parser().parse_args(arguments)
    check_outputs(options)
    dtypes = DTypePolicy.of(options.dtype)
    ceilings = _ceilings(options, dtypes)
    results = Results({"ceilings": dataclasses.asdict(ceilings)}, options.json, quiet=True)
    for name in options.target:
        config = target_config(name)
        for batch in options.batch:
            floor = sequential_floor(
                config,
                vqvae_config(config),
                batch,
                ceilings,
                guided=not options.no_guidance,
                itemsize=jnp.dtype(dtypes.param_dtype).itemsize,
                block_itemsize=1 if options.weights == INT8 else None,
            )
            results.add("floor", target=name, batch=batch, **floor.fields())
    table = markdown_table(results.records, COLUMNS)
    print(table)
    if options.markdown is not None:
        with atomic_file(options.markdown) as aside:
            aside.write_text(table + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
