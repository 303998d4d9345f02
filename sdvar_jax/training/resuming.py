"""Checkpoints of a run's state, to go on after a kill exactly where it stood."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from sdvar_jax.config.validation import require
from sdvar_jax.training.sharding import replicated
from sdvar_jax.training.state import TrainState


class RunCheckpoints:
    """The states of a run in a directory, the newest few kept (Orbax)."""

    def __init__(self, directory: Path, keep: int) -> None:
        self._manager = ocp.CheckpointManager(
            directory.resolve(),
            options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
        )

    def latest(self) -> int | None:
        """Steps of the newest state, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, source: Mapping[str, Any], identity: str) -> None:
        """Writes a state in the background.

        Args:
          state: after whole steps.
          source: where the batches stand (``BatchSource.get_state``).
          identity: describes the run; another run's state is refused by it.
        """
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(_named(state)),
                run=ocp.args.JsonSave({"source": dict(source), "identity": identity}),
            ),
        )

    def restore(
        self, state: TrainState, mesh: Mesh, identity: str
    ) -> tuple[TrainState, dict[str, Any]]:
        """Reads the newest state.

        Args:
          state: one of the same shapes.
          mesh: where it goes, to all devices.
          identity: see ``save``.

        Returns:
          The state and where the batches stood.

        Raises:
          SdvarError: it is the state of another run.
        """
        step = self.latest()
        assert step is not None
        run = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore())).run
        require(
            run["identity"] == identity,
            f"the checkpoints in {self._manager.directory} are of a run with other settings; "
            "give the same settings again or another directory",
        )
        abstract = {
            name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh))
            for name, leaf in _named(state).items()
        }
        named = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
        ).state
        return _unnamed(state, named), run["source"]

    def __enter__(self) -> RunCheckpoints:
        return self

    def __exit__(self, *exception: object) -> None:
        """Waits for what is being written, whatever ended the run."""
        self._manager.wait_until_finished()
        self._manager.close()


def _named(state: TrainState) -> dict[str, Any]:
    """Leaves by their path, which does not depend on the classes of optimizer states."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _unnamed(state: TrainState, named: Mapping[str, Any]) -> TrainState:
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    return jax.tree.unflatten(structure, [named[jax.tree_util.keystr(path)] for path, _ in leaves])
