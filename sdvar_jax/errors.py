"""The one exception type that users are meant to see, and how programs tell it."""

import contextlib
import sys
from collections.abc import Iterator


class SdvarError(Exception):
    """A mistake in the user's input or environment, told in one line with what to do about it.

    The command line prints the message alone and exits with code 2; the traceback appears only
    with ``--debug``. Programming errors use the ordinary Python exceptions instead.
    """


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the program with exit code 2 at a ``SdvarError``, its message on stderr."""
    try:
        yield
    except SdvarError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
