"""``python -m convert FILES... --output DIR``, ``python -m convert export DIR --output FILE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from convert.cli import convert_command, export_command
from sdvar_jax.errors import SdvarError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code (2: the user's input or environment is at fault)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    exporting = arguments[:1] == ["export"]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments[exporting:] if argument != "--debug"]
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command(epilog="--debug shows the whole traceback of an error.")(
        export_command if exporting else convert_command
    )
    name = "python -m convert export" if exporting else "python -m convert"
    try:
        app(arguments, prog_name=name)
    except SdvarError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
