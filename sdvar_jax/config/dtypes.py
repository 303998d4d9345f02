"""Which dtype is used where."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from sdvar_jax.errors import SdvarError

if TYPE_CHECKING:
    import jax
    from jax.typing import DTypeLike

_NAMES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class DTypePolicy:
    """Dtypes of parameters and arithmetic.

    What the original keeps in float32 under autocast stays in float32 whatever the policy: the
    head's LayerNorm and matmul, softmax, logits, sampling, the quantizer's f_hat.

    Attributes:
      param: dtype of the stored parameters ("float32", "bfloat16", "float16").
      compute: dtype of the transformer's and the VQVAE's arithmetic, and of the KV cache.
    """

    param: str = "float32"
    compute: str = "float32"

    def __post_init__(self) -> None:
        for role in ("param", "compute"):
            name = getattr(self, role)
            if name not in _NAMES:
                raise SdvarError(f"unknown {role} dtype {name!r}; use one of {', '.join(_NAMES)}")

    @property
    def param_dtype(self) -> DTypeLike:
        """The parameters' dtype as JAX knows it."""
        return _dtype(self.param)

    @property
    def compute_dtype(self) -> DTypeLike:
        """The arithmetic's dtype as JAX knows it."""
        return _dtype(self.compute)

    @property
    def precision(self) -> jax.lax.Precision:
        """Matmul precision: real float32 where float32 is asked for.

        Without it TPUs multiply float32 in bfloat16 and recent GPUs in TF32.
        """
        import jax

        exact = self.compute == "float32"
        return jax.lax.Precision.HIGHEST if exact else jax.lax.Precision.DEFAULT

    @classmethod
    def of(cls, name: str) -> DTypePolicy:
        """The policy that uses one dtype throughout."""
        return cls(param=name, compute=name)


def _dtype(name: str) -> DTypeLike:
    # Imported late: configurations alone can be read without JAX.
    import jax.numpy as jnp

    dtype: DTypeLike = getattr(jnp, name)
    return dtype


FLOAT32 = DTypePolicy()
BFLOAT16 = DTypePolicy.of("bfloat16")
