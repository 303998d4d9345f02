"""The loop that every training shares: dispatch, report, save, until the budget is spent."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from sdvar_jax.errors import SdvarError
from sdvar_jax.imaging import save_png
from sdvar_jax.runtime.directories import ensure_directory
from sdvar_jax.training.budget import make_budget
from sdvar_jax.training.config import OptimizerConfig, RunConfig
from sdvar_jax.training.interruption import StopRequest
from sdvar_jax.training.metrics import MetricsWriter
from sdvar_jax.training.optimizer import make_optimizer
from sdvar_jax.training.progress import RunProgress
from sdvar_jax.training.resuming import RunCheckpoints
from sdvar_jax.training.sharding import check_batch, data_mesh, replicated
from sdvar_jax.training.sources import BatchSource
from sdvar_jax.training.state import Params, TrainState, make_state
from sdvar_jax.training.step import StepSettings, Task, make_dispatch


@dataclasses.dataclass(frozen=True)
class Observers:
    """What looks at the weights on the way.

    Attributes:
      evaluate: averaged weights -> named numbers, on held-out pictures.
      picture: averaged weights -> a sheet of pictures.
      shown: metrics worth a place in the progress bar.
    """

    evaluate: Callable[[Params], Mapping[str, float]] | None = None
    picture: Callable[[Params], Image.Image] | None = None
    shown: tuple[str, ...] = ("loss",)


@dataclasses.dataclass(frozen=True)
class Fit:
    """What a run gave.

    Attributes:
      state: the last.
      history: name -> float [steps made in this call], every step's metrics.
      seconds: the whole call took.
      seconds_per_step: mean, without compiling.
    """

    state: TrainState
    history: Mapping[str, np.ndarray]
    seconds: float
    seconds_per_step: float


def fit(
    name: str,
    task: Task,
    params: Params,
    source: BatchSource,
    run: RunConfig,
    optimizer: OptimizerConfig,
    *,
    frozen: Any = None,
    extra: Any = None,
    observers: Observers = Observers(),
    mesh: Mesh | None = None,
    output: Path | None = None,
    resume: bool = False,
    started: float | None = None,
    identity: str = "",
    progress: bool = True,
) -> Fit:
    """Trains until the budget is spent.

    Args:
      name: of the run, for people.
      task: what is trained.
      params: the first weights.
      source: of the batches.
      run: length and habits.
      optimizer: how the weights move.
      frozen: arrays that the loss reads and nothing trains.
      extra: the task's first extra state.
      observers: what looks at the weights on the way.
      mesh: the devices; None for all.
      output: directory for metrics, pictures and checkpoints; None writes nothing.
      resume: go on from the newest checkpoint in ``output``, if there is one.
      started: when the run's clock started (``time.monotonic``); None for now.
      identity: of the run's settings; a checkpoint of other settings is not resumed.
      progress: whether anything is shown.

    Returns:
      The last state and every step's metrics.

    Raises:
      SdvarError: the batch does not fit the devices, the loss is not a number any more, the
        output cannot be written, or its checkpoints are of another run.
      SystemExit: SIGTERM came; the state was saved first.
    """
    started = time.monotonic() if started is None else started
    mesh = data_mesh() if mesh is None else mesh
    check_batch(mesh, run.batch_size)
    if output is not None:
        ensure_directory(output)
    budget = make_budget(run, started)
    settings = StepSettings(optimizer, run.seed, run.ema_decay)
    everywhere = replicated(mesh)
    state = make_state(params, make_optimizer(optimizer), ema=run.ema_decay > 0, extra=extra)
    state = jax.device_put(state, everywhere)
    frozen = jax.device_put(frozen, everywhere)
    resident = source.resident(mesh)
    programs: dict[int, Any] = {}
    history: list[Mapping[str, np.ndarray]] = []
    trained_seconds, trained_steps = 0.0, 0

    with (
        StopRequest() as stop,
        MetricsWriter(output) as writer,
        RunProgress(name, enabled=progress) as shown,
        contextlib.ExitStack() as stack,
        contextlib.ExitStack() as saved_first,
    ):
        checkpoints = None
        if output is not None:
            checkpoints = saved_first.enter_context(
                RunCheckpoints(output / "state", run.keep_checkpoints)
            )
            if resume and checkpoints.latest() is not None:
                state, place = checkpoints.restore(state, mesh, identity)
                source.set_state(place)
                shown.note(f"goes on at step {int(state.step)}")
        watch = _Watch(run, observers, writer, shown, output)
        step = int(state.step)
        saved = step
        # The first program call and its compiling are no measure of the next.
        total = budget.total(step, run.steps_per_dispatch)
        while step < total:
            begin = time.monotonic()
            steps = min(run.steps_per_dispatch, total - step)
            fetched = source.fetch(steps, mesh)
            arguments = (state, resident, fetched, frozen, jnp.asarray(total, jnp.float32))
            compiled = steps not in programs
            if compiled:
                dispatch = make_dispatch(task, settings, source, mesh, steps)
                program = jax.jit(
                    dispatch, donate_argnums=0, out_shardings=(everywhere, everywhere)
                )
                programs[steps] = program.lower(*arguments).compile()
                shown.note(f"compiled in {time.monotonic() - begin:.1f} s")
                if run.warm_observers and len(programs) == 1:
                    # Not before: two compilations at once would hold up the steps.
                    stack.callback(warm(observers, observed(state)).join)
                begin = time.monotonic()
            state, metrics = programs[steps](*arguments)
            metrics = {key: np.asarray(value) for key, value in jax.device_get(metrics).items()}
            step += steps
            history.append(metrics)
            means = {key: float(np.mean(value)) for key, value in metrics.items()}
            seconds = time.monotonic() - begin
            budget.dispatched(steps, seconds)
            trained_seconds += seconds
            trained_steps += steps
            means["steps_per_second"] = steps / seconds
            if not np.isfinite(means["loss"]):
                raise SdvarError(
                    f"the loss of {name} is not a number any more at step {step}; lower the "
                    "learning rate or compute in float32"
                )
            writer.scalars(step, means)
            watch.look(step, total, state)
            if checkpoints is not None and _due(run.checkpoint_every, saved, step):
                checkpoints.save(state, source.get_state(), identity)
                saved = step
            if stop.number is not None:
                if checkpoints is not None:
                    checkpoints.save(state, source.get_state(), identity)
                shown.note(f"asked to stop; saved at step {step}")
                raise SystemExit(128 + stop.number)
            total = max(step, budget.total(step, run.steps_per_dispatch))
            shown.update(step, total, {key: means[key] for key in observers.shown})
        if checkpoints is not None:
            checkpoints.save(state, source.get_state(), identity)
    return Fit(
        state=state,
        history={key: np.concatenate([row[key] for row in history]) for key in history[0]}
        if history
        else {},
        seconds=time.monotonic() - started,
        seconds_per_step=trained_seconds / max(trained_steps, 1),
    )


def _due(every: int, last: int, step: int) -> bool:
    """Whether ``every`` steps have passed since ``last``."""
    return every > 0 and step // every > last // every


def observed(state: TrainState) -> Params:
    """The weights that a run gives back, on one device.

    Observers are compiled for arguments there, once for the whole run and what follows it.
    """
    return jax.device_put(dict(state.averaged), jax.local_devices()[0])


def warm(observers: Observers, params: Params) -> threading.Thread:
    """Runs the observers once on a copy of the weights in the background.

    What they compile is then ready when they are needed, and compiling it costs no training time.
    Failures are left to the call that counts.
    """
    copy = {path: jnp.array(array) for path, array in params.items()}

    def run() -> None:
        for observer in (observers.evaluate, observers.picture):
            if observer is not None:
                with contextlib.suppress(Exception):
                    observer(copy)

    thread = threading.Thread(target=run, name="warm-observers", daemon=True)
    thread.start()
    return thread


class _Watch:
    """Evaluations and pictures, evenly over a run."""

    def __init__(
        self,
        run: RunConfig,
        observers: Observers,
        writer: MetricsWriter,
        shown: RunProgress,
        output: Path | None,
    ) -> None:
        self._run = run
        self._observers = observers
        self._writer = writer
        self._shown = shown
        self._output = output
        self._made = {"evaluations": 0, "pictures": 0}

    def _now(self, what: str, step: int, total: int) -> bool:
        wanted = getattr(self._run, what)
        due = wanted * step // max(total, 1)
        # What is due at the very end is made from the final weights by the caller.
        if step >= total or due <= self._made[what]:
            return False
        self._made[what] = due
        return True

    def look(self, step: int, total: int, state: TrainState) -> None:
        """Makes what is due after ``step`` of ``total`` steps."""
        if self._observers.evaluate is not None and self._now("evaluations", step, total):
            values = self._observers.evaluate(observed(state))
            self._writer.scalars(step, {f"heldout/{name}": v for name, v in values.items()})
            # Details (of each scale, say) are for the files.
            told = ", ".join(f"{name} {v:.4g}" for name, v in values.items() if "/" not in name)
            self._shown.note(f"step {step}, held out: {told}")
        if self._output is None or self._observers.picture is None:
            return  # a picture that is not kept is not worth its time
        if self._now("pictures", step, total):
            picture = self._observers.picture(observed(state))
            self._writer.picture(step, "pictures", picture)
            directory = ensure_directory(self._output / "pictures")
            save_png(picture, directory / f"step_{step:07d}.png")
