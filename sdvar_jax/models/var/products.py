"""The products of a block, with what x is multiplied by in floats or in eight bits."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from sdvar_jax.config import DTypePolicy


class Kernel(NamedTuple):
    """A matrix that x is multiplied by.

    Attributes:
      values: [width, columns], floats or int8.
      scale: what the columns of an int8 matrix are multiplied by, float32 [columns]; None of a
        matrix of floats.
    """

    values: jax.Array
    scale: jax.Array | None = None

    @classmethod
    def of(cls, values: nnx.Param, scale: nnx.Param | None) -> Kernel:
        """The kernel that two parameters of a module hold."""
        return cls(values[...], None if scale is None else scale[...])


def product(x: jax.Array, kernel: Kernel, dtypes: DTypePolicy) -> jax.Array:
    """The product x @ kernel, [..., width] -> [..., columns] in the compute dtype.

    Eight bits are exact in every compute dtype. The sum is in float32 until it is scaled: before,
    it may be larger than float16 can hold.
    """
    dtype, precision = dtypes.compute_dtype, dtypes.precision
    if kernel.scale is None:
        return jnp.matmul(x, kernel.values.astype(dtype), precision=precision)
    # Tied to x, or the compiler would make the floats once for all products with this kernel and
    # keep them: what eight bits are to save. (That of CPUs drops the barrier and does.)
    x, values = jax.lax.optimization_barrier((x, kernel.values))
    out = jnp.matmul(
        x, values.astype(dtype), precision=precision, preferred_element_type=jnp.float32
    )
    return (out * jnp.expand_dims(kernel.scale, range(x.ndim - 1))).astype(dtype)


class Linear(nnx.Linear):
    """A linear layer whose kernel may be int8.

    Attributes:
      kernel_scale: float32 [columns] of an int8 kernel, else None.
    """

    # Of the class, so that a layer of floats has no trace of it.
    kernel_scale: nnx.Param | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        dtypes: DTypePolicy,
        *,
        kernel_init: jax.nn.initializers.Initializer,
        rngs: nnx.Rngs,
    ) -> None:
        super().__init__(
            in_features,
            out_features,
            dtype=dtypes.compute_dtype,
            param_dtype=dtypes.param_dtype,
            precision=dtypes.precision,
            kernel_init=kernel_init,
            rngs=rngs,
        )
        self.dtypes = dtypes

    def weight(self) -> Kernel:
        """What the inputs are multiplied by."""
        return Kernel.of(self.kernel, self.kernel_scale)

    def offset(self) -> jax.Array:
        """The bias [columns]."""
        assert self.bias is not None
        return self.bias[...]

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        """The layer's outputs in the compute dtype, [..., width] -> [..., columns]."""
        if self.kernel_scale is None:
            return super().__call__(inputs, out_sharding)
        dtype = self.dtypes.compute_dtype
        out = product(inputs.astype(dtype), self.weight(), self.dtypes)
        return out + jnp.expand_dims(self.offset().astype(dtype), range(out.ndim - 1))
