"""Kernels that let the next one start before they end (programmatic dependent launch).

From compute capability 9.0 on, a kernel may say that the next of its CUDA graph can be launched:
its programs then take their places while this one still works, and wait there until it has ended
and its results can be read. XLA (jaxlib 0.11) makes every kernel wait like that, Pallas' too, but
only some of its own say the word. With older versions nothing starts early.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.runtime.gpu import compute_capability


@functools.cache
def _available() -> bool:
    """Whether the first device knows the instruction."""
    capability = compute_capability()
    return capability is not None and capability >= (9, 0)


def launch_next(*, interpret: bool) -> jax.Array:
    """Lets the next kernel start; called in a kernel.

    It is only a hint: the next kernel waits for all of this one's results, wherever in it this
    stands.

    Args:
      interpret: whether the kernel runs without an accelerator, where there is nothing to start.

    Returns:
      Zero, int32 scalar. The kernel's result must depend on it, or the compiler leaves it out.
    """
    if interpret or not _available():
        return jnp.int32(0)
    (zero,) = plt.elementwise_inline_asm(
        "griddepcontrol.launch_dependents; mov.b32 $0, 0;",
        # Triton wants operand and result to be arrays.
        args=[jnp.full((1,), pl.program_id(0))],
        constraints="=r,r",
        pack=1,
        result_shape_dtypes=[jax.ShapeDtypeStruct((1,), jnp.int32)],
    )
    return jnp.sum(zero)
