"""What devices there are and how much memory they used, as far as they tell."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import jax


def describe_devices(devices: Sequence[jax.Device] | None = None) -> str:
    """One line saying what a program runs on, such as "2 x NVIDIA H100 80GB HBM3 (gpu)".

    Args:
      devices: the devices to describe; this process's devices if None.
    """
    devices = jax.local_devices() if devices is None else devices
    described = []
    # A dict keeps the order; devices of one kind are counted together.
    for kind, platform in dict.fromkeys((d.device_kind, d.platform) for d in devices):
        count = sum((d.device_kind, d.platform) == (kind, platform) for d in devices)
        if platform == "cpu":
            # Several CPU devices of one process are a partition of the same cores.
            virtual = "" if count == 1 else f", {count} virtual devices"
            described.append(f"CPU ({os.cpu_count()} cores{virtual})")
        else:
            described.append(f"{f'{count} x ' if count > 1 else ''}{kind} ({platform})")
    return ", ".join(described)


def peak_memory(devices: Sequence[jax.Device] | None = None) -> tuple[int | None, ...]:
    """Peak memory in use on each device since the process started.

    Args:
      devices: the devices to ask; this process's devices if None.

    Returns:
      Bytes a device, in the order of ``devices``; None where the backend does not tell (a CPU's
      does not, see :func:`peak_host_memory`).
    """
    devices = jax.local_devices() if devices is None else devices
    return tuple(_peak(device) for device in devices)


def _peak(device: jax.Device) -> int | None:
    try:
        stats = device.memory_stats()
    except jax.errors.JaxRuntimeError:  # a backend that has not implemented it
        return None
    return None if stats is None else stats.get("peak_bytes_in_use")


def peak_host_memory() -> int | None:
    """Peak resident memory of this process in bytes, or None where the system does not tell."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
