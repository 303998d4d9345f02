"""XLA options for the programs of sampling."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax

# By default XLA hands products on a CPU to a library that puts its kernels together at the first
# run, for each product of the program anew. Without it the first grid of the emoji pair comes two
# seconds earlier on two cores, and later ones take a fifth less.
_CPU_OPTIONS: Mapping[str, str] = {"xla_cpu_experimental_ynn_fusion_type": ""}


def compiler_options() -> dict[str, str | bool]:
    """Options for ``jax.stages.Lowered.compile`` on the default backend.

    Those that the installed XLA does not know are left out.
    """
    if jax.default_backend() != "cpu":
        return {}
    return {name: value for name, value in _CPU_OPTIONS.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: str) -> bool:
    """Whether XLA takes an option: it refuses to compile with any other."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
    except Exception:
        return False
    return True
