"""Entry point of the command ``sdvar``: finds the sub-command, and tells errors in one line."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence

from sdvar_jax.cli.commands import build_app
from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.signals import sigterm_as_exit

OK, UNEXPECTED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

_DEBUG = "--debug"
_OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Args:
      arguments: of the command; None takes those of the process.

    Returns:
      The exit code: 0; 2 where the user's input or environment is at fault, told in one line;
      1 for anything unexpected; 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = _DEBUG in words
    # Every command takes it, those of other packages as well.
    words = [word for word in words if word != _DEBUG] or ["--help"]
    try:
        with sigterm_as_exit():
            code = build_app(words)(words)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # Whoever read our output has left (`sdvar info DIR | head -1`); nothing more can be said.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        return _failed(error, debug)
    return _interrupted() if code == INTERRUPTED else code


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return INTERRUPTED


def _failed(error: Exception, debug: bool) -> int:
    """Tells an error and returns the exit code."""
    if _is_abort(error):
        return _interrupted()
    if debug:
        traceback.print_exception(error)
    if isinstance(error, SdvarError):
        return _told(str(error), USER_ERROR)
    if _is_usage(error):
        return _told_usage(error)
    if _OUT_OF_MEMORY in str(error) or isinstance(error, MemoryError):
        return _told(
            "out of memory; try a smaller --batch-size, --dtype bfloat16 or a smaller model",
            USER_ERROR,
        )
    hint = "" if debug else f"; run again with {_DEBUG} for the traceback"
    return _told(f"unexpected {type(error).__name__}: {_first_line(error)}{hint}", UNEXPECTED)


def _told(message: str, code: int) -> int:
    """Prints one line."""
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no message")


def _is_usage(error: Exception) -> bool:
    """Whether it is about the command line itself.

    Typer carries Click's classes along in some versions and imports them in others, so that no one
    import finds them.
    """
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _is_abort(error: Exception) -> bool:
    return type(error).__name__ == "Abort"


def _told_usage(error: Exception) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # the help was printed
        return USER_ERROR
    message = str(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    path = "sdvar" if context is None else context.command_path
    return _told(f"{message}; see `{path} --help`", USER_ERROR)


if __name__ == "__main__":
    sys.exit(main())
