"""One training step, and many of them as one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from sdvar_jax.training.config import OptimizerConfig
from sdvar_jax.training.optimizer import make_optimizer
from sdvar_jax.training.schedule import learning_rate
from sdvar_jax.training.sharding import split_batch
from sdvar_jax.training.sources import BatchSource
from sdvar_jax.training.state import Params, TrainState

Metrics = Mapping[str, jax.Array]
Loss = Callable[
    [Params, Any, Mapping[str, jax.Array], jax.Array, Any],
    tuple[jax.Array, tuple[Metrics, Any]],
]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is trained.

    Attributes:
      loss: (params, extra, batch, key, frozen) -> loss and (metrics, side); ``side`` is what
        ``after`` needs.
      after: (state, side, key, total) -> state, made after the weights have moved; None for
        nothing.
    """

    loss: Callable[
        [Params, Any, Mapping[str, jax.Array], jax.Array, Any],
        tuple[jax.Array, tuple[Metrics, Any]],
    ]
    after: Callable[[TrainState, Any, jax.Array, jax.Array], TrainState] | None = None


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What of a step is compiled in.

    Attributes:
      optimizer: AdamW and its schedule.
      seed: of all randomness in the steps.
      ema_decay: of the averaged weights.
    """

    optimizer: OptimizerConfig
    seed: int
    ema_decay: float


def train_step(
    task: Task,
    settings: StepSettings,
    state: TrainState,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
    frozen: Any,
    total: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Moves the weights once; pure.

    Args:
      task: the loss.
      settings: how the weights move.
      state: before.
      batch: name -> [batch, ...].
      key: of this step's noise.
      frozen: arrays that the loss reads and nothing trains (a quantizer, a target).
      total: steps of the whole run, float32 scalar.

    Returns:
      The state after, and scalars: the task's metrics, "loss", "gradient_norm", "learning_rate".
    """
    loss_key, after_key = jax.random.split(key)
    (loss, (metrics, side)), gradients = jax.value_and_grad(task.loss, has_aux=True)(
        state.params, state.extra, batch, loss_key, frozen
    )
    optimizer = make_optimizer(settings.optimizer)
    direction, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    rate = learning_rate(settings.optimizer, state.step, total)
    params = optax.apply_updates(state.params, jax.tree.map(lambda d: -rate * d, direction))
    ema = state.ema
    if ema is not None:
        # Early on the average forgets the random start faster: (1 + n) / (10 + n).
        step = state.step.astype(jnp.float32)
        decay = jnp.minimum(settings.ema_decay, (1.0 + step) / (10.0 + step))
        ema = jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, ema, params)
    state = state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state)
    if task.after is not None:
        state = task.after(state, side, after_key, total)
    told = {"gradient_norm": optax.tree_utils.tree_norm(gradients), "learning_rate": rate}
    return state, {**metrics, **told, "loss": loss}


def make_dispatch(
    task: Task, settings: StepSettings, source: BatchSource, mesh: Mesh, steps: int
) -> Callable[..., tuple[TrainState, Metrics]]:
    """A function that makes several steps, to be compiled.

    Args:
      task: what is trained.
      settings: how the weights move.
      source: of the batches.
      mesh: the devices.
      steps: how many.

    Returns:
      (state, resident, fetched, frozen, total) -> state and metrics [steps] each.
    """

    def dispatch(
        state: TrainState, resident: Any, fetched: Any, frozen: Any, total: jax.Array
    ) -> tuple[TrainState, Metrics]:
        def body(state: TrainState, row: Any) -> tuple[TrainState, Metrics]:
            key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
            draw_key, step_key = jax.random.split(key)
            batch = split_batch(source.batch(resident, row, draw_key), mesh)
            return train_step(task, settings, state, batch, step_key, frozen, total)

        return jax.lax.scan(body, state, fetched, length=steps)

    return dispatch
