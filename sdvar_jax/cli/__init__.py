"""The command ``sdvar``: one module a sub-command, each on the public API alone."""
