"""What GPU this is."""

from __future__ import annotations

import jax


def compute_capability() -> tuple[int, int] | None:
    """That of the first device, (major, minor); None where it is no NVIDIA GPU."""
    device = jax.devices()[0]
    # Of AMD's GPUs it is a name.
    major, _, minor = str(getattr(device, "compute_capability", "")).partition(".")
    if device.platform != "gpu" or not (major.isdigit() and minor.isdigit()):
        return None
    return int(major), int(minor)
