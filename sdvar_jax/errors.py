"""The one exception type that users are meant to see."""


class SdvarError(Exception):
    """A mistake in the user's input or environment, told in one line with what to do about it.

    The command line prints the message alone and exits with code 2; the traceback appears only
    with ``--debug``. Programming errors use the ordinary Python exceptions instead.
    """
