"""XLA options for the programs of sampling."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax

# By default XLA hands products on a CPU to a library that puts its kernels together at the first
# run, for each product of the program anew. Without it the first grid of the emoji pair comes two
# seconds earlier on two cores, and later ones take a fifth less.
_CPU_OPTIONS: Mapping[str, str | bool] = {"xla_cpu_experimental_ynn_fusion_type": ""}

# Left to NVIDIA's library, a product takes its bias and GELU along; XLA's own kernels leave them to
# passes of their own, and take twice as long to compile (``docs/performance.md``).
_GPU_OPTIONS: Mapping[str, str | bool] = {"xla_gpu_enable_triton_gemm": False}


def compiler_options() -> dict[str, str | bool]:
    """Options for ``jax.stages.Lowered.compile`` on the default backend.

    Those that the installed XLA does not know are left out.
    """
    wanted = {"cpu": _CPU_OPTIONS, "gpu": _GPU_OPTIONS}.get(jax.default_backend(), {})
    return {name: value for name, value in wanted.items() if _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: str | bool) -> bool:
    """Whether XLA takes an option: it refuses to compile with any other."""
    try:
        jax.jit(lambda: 0).lower().compile(compiler_options={name: value})
    except Exception:
        return False
    return True
