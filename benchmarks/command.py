"""What the command lines share: options, context of a run, errors in one line."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

import sdvar_jax
from benchmarks.random_models import SIZES, RandomModels
from sdvar_jax.config import DTypePolicy
from sdvar_jax.decoding import Speculative
from sdvar_jax.errors import errors_in_one_line
from sdvar_jax.models.kernels import AUTO, KERNELS
from sdvar_jax.models.var.quantized import FLOAT, WEIGHTS
from sdvar_jax.runtime.atomic import check_file_destination
from sdvar_jax.runtime.memory import describe_devices
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.sampling.filtering import METHODS


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of every benchmark that runs models."""
    parser.add_argument(
        "--dtype", default="bfloat16", help="of weights and arithmetic (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=positive, default=20, help="measured calls (default: %(default)s)"
    )
    parser.add_argument(
        "--filter",
        choices=(AUTO, *METHODS),
        default=AUTO,
        help="top-k/top-p; auto goes with the kernels (default: %(default)s)",
    )
    parser.add_argument(
        "--kernels",
        choices=(AUTO, *KERNELS),
        default=AUTO,
        help="what runs the transformers (default: %(default)s)",
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        default=FLOAT,
        help="what the blocks' matrices are held in (default: %(default)s)",
    )
    parser.add_argument("--cfg", type=float, default=1.5)
    parser.add_argument("--top-k", type=int, default=900)
    parser.add_argument("--top-p", type=float, default=0.96)
    parser.add_argument("--seed", type=int, default=0)
    add_output_options(parser)


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Where results go."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="results, complete at any time")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="tables, written at the end")


def add_budget_option(parser: argparse.ArgumentParser) -> None:
    """How long the run may take."""
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="skip what does not fit in this time"
    )


def add_adaptive_options(parser: argparse.ArgumentParser) -> None:
    """What adaptive windows choose from, and what they may lose."""
    parser.add_argument(
        "--adaptive-gammas", nargs="+", type=int, default=list(Speculative.adaptive_gammas)
    )
    parser.add_argument(
        "--adaptive-overhead",
        type=float,
        default=Speculative.adaptive_overhead,
        help="what adaptive windows may lose, as a share of the target's time "
        "(default: %(default)s)",
    )


def add_size_options(parser: argparse.ArgumentParser, *, several: bool = True) -> None:
    """Which models."""
    parser.add_argument(
        "--target",
        nargs="+" if several else None,
        choices=SIZES,
        default=["d30"] if several else "d30",
        help="size of the large model (default: d30)",
    )
    parser.add_argument(
        "--draft", choices=SIZES, default="d16", help="size of the small model (default: d16)"
    )
    parser.add_argument(
        "--batch", nargs="+", type=positive, default=[1], help="images a call (default: 1)"
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must lie in 0..1, got {value}")
    return value


def sampling_config(options: argparse.Namespace) -> SamplingConfig:
    """Guidance and filtering as asked for."""
    return SamplingConfig(cfg=options.cfg, top_k=options.top_k, top_p=options.top_p)


def random_models(
    options: argparse.Namespace, target: str, draft: str | None = None
) -> RandomModels:
    """Models of these sizes as the run options ask for them, see ``add_run_options``."""
    dtypes = DTypePolicy.of(options.dtype)
    return RandomModels.make(target, draft, dtypes, options.seed, options.kernels, options.weights)


def check_outputs(options: argparse.Namespace) -> None:
    """``SdvarError`` where a result file could not be written, before anything is measured."""
    for path in (options.json, options.markdown):
        if path is not None:
            check_file_destination(path)


def run_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The command line's options; of files their names alone."""
    return {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(options).items()
    }


def run_context(options: argparse.Namespace) -> dict[str, Any]:
    """Device, versions and settings of a run."""
    return {
        "device": describe_devices(),
        "jax": jax.__version__,
        "sdvar_jax": sdvar_jax.__version__,
        "python": platform.python_version(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "settings": run_settings(options),
    }


def run_command(main: Callable[[Sequence[str] | None], None]) -> None:
    """Runs a ``main`` and exits; what is the user's to mend is told in one line."""
    try:
        with errors_in_one_line():
            main(None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
