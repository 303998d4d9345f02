"""The sub-commands of ``sdvar`` and where they are; only the one that is run is imported."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from sdvar_jax import __version__

PICTURES, CHECKPOINTS, TRAINING = "Pictures", "Checkpoints", "Training"

EPILOG = (
    "Add --debug to any command for the traceback of an error. "
    "`sdvar COMMAND --help` explains a command."
)


@dataclasses.dataclass(frozen=True)
class Command:
    """One sub-command, not yet imported.

    Attributes:
      name: as the user types it.
      module: where it is.
      attribute: the function, or the ``Typer`` of a group of commands.
      help: one line for the list of commands.
      panel: heading in the list of commands.
      group: whether it has sub-commands of its own.
    """

    name: str
    module: str
    attribute: str
    help: str
    panel: str
    group: bool = False

    def load(self) -> Any:
        """Imports it."""
        return getattr(importlib.import_module(self.module), self.attribute)


COMMANDS = (
    Command(
        "sample",
        "sdvar_jax.cli.sample",
        "sample",
        "Make pictures of classes.",
        PICTURES,
    ),
    Command(
        "edit",
        "sdvar_jax.cli.edit",
        "edit",
        "Fill, extend or change a part of a picture.",
        PICTURES,
    ),
    Command(
        "reconstruct",
        "sdvar_jax.cli.reconstruct",
        "reconstruct",
        "Turn pictures into tokens and back, and tell what is lost.",
        PICTURES,
    ),
    Command(
        "info",
        "sdvar_jax.cli.info",
        "info",
        "Tell what a checkpoint is.",
        CHECKPOINTS,
    ),
    Command(
        "convert",
        "convert.cli",
        "convert_command",
        "Convert PyTorch weights to a Flax checkpoint.",
        CHECKPOINTS,
    ),
    Command(
        "export",
        "convert.cli",
        "export_command",
        "Export a model of a checkpoint as a PyTorch state dict.",
        CHECKPOINTS,
    ),
    Command(
        "data",
        "sdvar_jax.cli.data",
        "app",
        "Prepare training pictures.",
        TRAINING,
        group=True,
    ),
    Command(
        "train",
        "sdvar_jax.cli.train",
        "app",
        "Train a VQVAE, a VAR, or a draft for a VAR.",
        TRAINING,
        group=True,
    ),
    Command(
        "evaluate",
        "sdvar_jax.cli.evaluate",
        "evaluate",
        "Make many pictures and measure how good they are.",
        TRAINING,
    ),
)


def build_app(words: Sequence[str]) -> Callable[[Sequence[str]], int]:
    """The command line program for these words.

    Args:
      words: what the user typed; the first that is no option names the sub-command, and only that
        one is imported. (All are while a shell asks for completions.)

    Returns:
      A function that runs words and returns an exit code. It raises Click's exceptions for a
      command line that is wrong.
    """
    chosen = next((word for word in words if not word.startswith("-")), None)
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    app = typer.Typer(
        help="Make pictures with VAR models, fast: a small model drafts, a large one checks.",
        epilog=EPILOG,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    app.callback()(_options)
    for command in COMMANDS:
        _register(app, command, loaded=completing or command.name == chosen)
    program = typer.main.get_command(app)

    def run(arguments: Sequence[str]) -> int:
        code = program.main(args=list(arguments), prog_name="sdvar", standalone_mode=False)
        return code if isinstance(code, int) else 0

    return run


def _register(app: typer.Typer, command: Command, *, loaded: bool) -> None:
    """Adds a command; one that is not loaded only shows in the list."""
    name, panel = command.name, command.panel
    if command.group:
        group = command.load() if loaded else typer.Typer()
        if not loaded:
            group.callback()(_not_loaded)
        app.add_typer(
            group, name=name, help=command.help, no_args_is_help=True, rich_help_panel=panel
        )
    elif loaded:
        app.command(name, epilog=EPILOG, rich_help_panel=panel)(command.load())
    else:
        app.command(name, help=command.help, rich_help_panel=panel)(_not_loaded)


def _not_loaded() -> None:
    raise AssertionError("this command is in the list of commands only")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sdvar {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    # The command's own help is in ``build_app``.
    del version
