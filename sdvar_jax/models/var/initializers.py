"""Initial weights of the VAR transformer, as the original's ``init_weights`` makes them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from sdvar_jax.config import DTypePolicy
from sdvar_jax.models.var.products import Linear

ADALN_GAIN = 0.5
ADALN_GAMMA_GAIN = 1e-5
HEAD_GAIN = 0.02


def weight_init(width: int, gain: float = 1.0) -> jax.nn.initializers.Initializer:
    """Normal with standard deviation gain / sqrt(3 * width), cut at +-2 (PyTorch's trunc_normal_).

    The cut is at an absolute 2, many standard deviations away, so a plain normal is the same.
    """
    return jax.nn.initializers.normal(gain * (3 * width) ** -0.5)


def linear(
    in_features: int,
    out_features: int,
    dtypes: DTypePolicy,
    rngs: nnx.Rngs,
    *,
    width_scale: int,
    gain: float = 1.0,
) -> Linear:
    """A linear layer initialised for a transformer of width ``width_scale``; zero bias."""
    init = weight_init(width_scale, gain)
    return Linear(in_features, out_features, dtypes, kernel_init=init, rngs=rngs)


def modulation_init(width: int) -> Callable[..., jax.Array]:
    """Initial AdaLN kernel [width, 6 * width]: almost zero for the gammas, halved for the rest."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        gains = jnp.where(jnp.arange(6 * width) < 2 * width, ADALN_GAMMA_GAIN, ADALN_GAIN)
        return (weight_init(width)(key, shape, jnp.float32) * gains[None]).astype(dtype)

    return init
