"""The PyTorch original beside this package, from the user's own checkout, in one run.

    python -m benchmarks.pytorch_peer --var-repo PATH --target d16 d30 --batch 1 32

It is the suite with target-only decoding and the original beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks import sample
from benchmarks.command import run_command
from sdvar_jax.errors import SdvarError


def build_parser() -> argparse.ArgumentParser:
    """The command line: that of the suite, whose target-only decoding stands beside."""
    parser = sample.build_parser()
    parser.prog = "python -m benchmarks.pytorch_peer"
    parser.description = __doc__.splitlines()[0]
    parser.set_defaults(only=["target"])
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs both."""
    options = build_parser().parse_args(arguments)
    if options.var_repo is None:
        raise SdvarError("say where the checkout of the PyTorch original is: --var-repo PATH")
    sample.run(options)


if __name__ == "__main__":
    run_command(main)
