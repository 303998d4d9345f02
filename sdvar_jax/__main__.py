"""``python -m sdvar_jax`` is the command ``sdvar``."""

from __future__ import annotations

import sys

from sdvar_jax.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
