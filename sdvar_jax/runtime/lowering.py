"""Lowering a program without what Python does in vain meanwhile."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any

import jax

_KERNEL_LANGUAGE = "jax.experimental.pallas.triton"
_TRITON_DIALECT = "jaxlib.mlir.dialects.tt"
"""Where MLIR's Python bindings look for Triton's operations; jaxlib keeps them elsewhere."""


def lowered(program: Any, **arguments: Any) -> jax.stages.Lowered:
    """What ``program.lower(**arguments)`` gives, sooner.

    Args:
      program: a function under ``jax.jit``.
      arguments: its arguments, arrays or ``jax.ShapeDtypeStruct``.
    """
    with _collector_paused():
        traced = program.trace(**arguments)
        # Tracing imports the language where a kernel is written in it.
        if _KERNEL_LANGUAGE in sys.modules:
            _show_triton_dialect()
        return traced.lower()


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Holds the cycle collector back: traces grow by millions of objects and leave few cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _show_triton_dialect() -> None:
    """Puts Triton's operations where the bindings look for them.

    Found nowhere, they are looked for anew with each operation made and each type seen: thousands
    of imports that fail, a third of the time to lower a large model.
    """
    if _TRITON_DIALECT in sys.modules:
        return
    with contextlib.suppress(ImportError):
        from jaxlib.triton import dialect

        sys.modules[_TRITON_DIALECT] = dialect
