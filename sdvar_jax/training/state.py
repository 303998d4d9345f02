"""Everything a training run carries from step to step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct

Params = Mapping[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """The state of a run; a pytree.

    All randomness of a step follows from the run's seed and ``step``, so neither a key nor a place
    in the data is part of it.

    Attributes:
      step: steps made, int32 scalar.
      params: dotted path -> float32 weight.
      ema: exponential moving average of ``params``; None where it is off.
      opt_state: the optimizer's.
      extra: what a task keeps beside (the codebook's use), or None.
    """

    step: jax.Array
    params: Params
    ema: Params | None
    opt_state: optax.OptState
    extra: Any

    @property
    def averaged(self) -> Params:
        """The weights a run gives back."""
        return self.params if self.ema is None else self.ema


def make_state(
    params: Params, optimizer: optax.GradientTransformation, *, ema: bool, extra: Any = None
) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=dict(params),
        # A copy: the step donates its buffers, and one buffer cannot be given twice.
        ema={path: jnp.array(array) for path, array in params.items()} if ema else None,
        opt_state=optimizer.init(dict(params)),
        extra=extra,
    )


def model_params(model: nnx.Module) -> dict[str, jax.Array]:
    """Dotted path -> weight of every parameter of a model, as float32 copies."""
    leaves = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {
        ".".join(map(str, path)): jnp.array(leaf[...], dtype=jnp.float32, copy=True)
        for path, leaf in leaves
    }
