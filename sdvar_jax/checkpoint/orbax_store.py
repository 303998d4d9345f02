"""Weights of one model as an Orbax checkpoint, written and restored array by array."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import type_handlers

from sdvar_jax.checkpoint.assembly import flatten, nest
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.errors import SdvarError

Progress = Callable[[int], None]

# How much of a checkpoint may be in flight at once while it is restored.
_IN_FLIGHT_BYTES = 128 * 10**6
# And how much is held while it is written or read one by one.
_BATCH_BYTES = 64 * 2**20


class _Stopped(Exception):
    """Ends a write between two batches."""


class _InBatches(type_handlers.NumpyHandler):
    """Writes lazy arrays as NumPy arrays, a batch read only once the one before is on disk."""

    def __init__(self, progress: Progress | None, stop: threading.Event) -> None:
        super().__init__(deepcopy_host_arrays=False)
        self._progress = progress
        self._stop = stop

    async def serialize(
        self,
        values: Sequence[Any],
        infos: Sequence[Any],
        args: Sequence[ocp.SaveArgs] | None = None,
    ) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(values)
        for batch in _batches([value.nbytes for value in values]):
            arrays = [value.read() for value in values[batch]]
            for written in await super().serialize(arrays, infos[batch], args[batch]):
                written.result()
            if self._stop.is_set():
                raise _Stopped
            if self._progress is not None:
                self._progress(sum(value.nbytes for value in values[batch]))
        return []


def _batches(sizes: Sequence[int]) -> Iterator[slice]:
    """Slices of arrays of ``sizes`` bytes, about ``_BATCH_BYTES`` each: every access has a cost."""
    start, held = 0, 0
    for i, size in enumerate(sizes):
        if held and held + size > _BATCH_BYTES:
            yield slice(start, i)
            start, held = i, 0
        held += size
    if sizes:
        yield slice(start, len(sizes))


def write_orbax(
    directory: Path, arrays: Mapping[str, LazyArray], progress: Progress | None = None
) -> None:
    """Writes arrays as the nested dict that their dotted paths describe.

    Args:
      directory: to be made; its parent exists.
      arrays: dotted path -> array.
      progress: called with the bytes of each array written.
    """
    request = ocp.args.PyTreeSave(nest(arrays, int_keys=False))

    def write(stop: threading.Event) -> None:
        registry = type_handlers.create_type_handler_registry(
            (LazyArray, _InBatches(progress, stop)), (jax.Array, type_handlers.ArrayHandler())
        )
        # Weights hardly compress; without it both ways are faster.
        handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry, use_compression=False)
        with ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(directory.resolve(), args=request)

    _run_stoppable(write)


def _run_stoppable(work: Callable[[threading.Event], None]) -> None:
    """Runs ``work`` in a thread and, when interrupted, returns only once it has stopped.

    Orbax writes in threads of its own. An interrupt in the middle would leave them writing into a
    directory that is being removed, so it only sets the event that ``work`` looks at.
    """
    stop, done = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="write-checkpoint").start()
    try:
        done.wait()
    except BaseException:
        stop.set()
        done.wait()
        raise
    if errors:
        raise errors[0]


def orbax_shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Dotted path -> shape of every array, from the metadata alone."""
    return {path: tuple(leaf.shape) for path, leaf in flatten(_metadata(directory)).items()}


def read_orbax(
    directory: Path,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    progress: Progress | None = None,
) -> dict[str, jax.Array]:
    """Restores arrays straight to their dtype and sharding.

    Args:
      directory: that ``write_orbax`` made.
      wanted: dotted path -> shape, dtype and sharding; exactly the arrays stored.
      progress: called with the bytes restored, once all are.

    Returns:
      Dotted path -> array.

    Raises:
      SdvarError: files are missing or damaged.
    """
    abstract = nest(wanted, int_keys=False)
    args = jax.tree.map(
        lambda leaf: ocp.ArrayRestoreArgs(
            dtype=leaf.dtype, sharding=leaf.sharding, global_shape=leaf.shape
        ),
        abstract,
    )
    largest = max(leaf.size * leaf.dtype.itemsize for leaf in wanted.values())
    handler = ocp.PyTreeCheckpointHandler(
        # Given in GB though the bound is far below one.
        restore_concurrent_gb=max(_IN_FLIGHT_BYTES, 2 * largest) / 1e9,
    )
    try:
        with ocp.Checkpointer(handler) as checkpointer:
            restored = checkpointer.restore(
                directory.resolve(), args=ocp.args.PyTreeRestore(abstract, restore_args=args)
            )
    except Exception as error:  # Orbax and TensorStore raise bare ones.
        raise _damaged(directory, error) from error
    if progress is not None:
        progress(sum(leaf.size * leaf.dtype.itemsize for leaf in wanted.values()))
    return flatten(restored)


def orbax_arrays(directory: Path, order: Sequence[str] | None = None) -> dict[str, LazyArray]:
    """Every array as it is stored, read when it is needed.

    A read brings in the arrays that follow as well, up to a batch, since each access costs a
    moment; so reading along ``order`` is quick and holds one batch at a time.

    Args:
      directory: that ``write_orbax`` made.
      order: the paths, as they are going to be read.

    Raises:
      SdvarError: the metadata is missing or damaged (from ``read``: an array is).
    """
    metadata = flatten(_metadata(directory))
    paths = list(metadata) if order is None else [path for path in order if path in metadata]
    shapes = {
        path: jax.ShapeDtypeStruct(metadata[path].shape, metadata[path].dtype) for path in paths
    }
    reader = _BatchReader(directory, tuple(metadata), shapes)
    return {
        path: LazyArray(tuple(leaf.shape), np.dtype(leaf.dtype), functools.partial(reader, path))
        for path, leaf in shapes.items()
    }


class _BatchReader:
    """Reads arrays by path and holds the batch of the last one."""

    def __init__(
        self, directory: Path, stored: Sequence[str], shapes: Mapping[str, jax.ShapeDtypeStruct]
    ) -> None:
        self._directory = directory
        self._stored = stored
        paths, leaves = list(shapes), list(shapes.values())
        sizes = [leaf.size * leaf.dtype.itemsize for leaf in leaves]
        self._batch_of = {path: paths[batch] for batch in _batches(sizes) for path in paths[batch]}
        self._held: dict[str, np.ndarray] = {}

    def __call__(self, path: str) -> np.ndarray:
        if path not in self._held:
            self._held = {}
            self._held = self._restore(self._batch_of[path])
        return self._held[path]

    def _restore(self, paths: Sequence[str]) -> dict[str, np.ndarray]:
        item: dict[str, Any] = dict.fromkeys(self._stored, ocp.PLACEHOLDER)
        item.update(dict.fromkeys(paths, 0))
        args = dict.fromkeys(self._stored, ocp.RestoreArgs(restore_type=np.ndarray))
        request = ocp.args.PyTreeRestore(
            nest(item, int_keys=False), restore_args=nest(args, int_keys=False)
        )
        try:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
                restored = flatten(checkpointer.restore(self._directory.resolve(), args=request))
        except Exception as error:  # Orbax and TensorStore raise bare ones.
            raise _damaged(self._directory, error) from error
        return {path: restored[path] for path in paths}


def _metadata(directory: Path) -> Mapping[str, Any]:
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            metadata = checkpointer.metadata(directory.resolve())
    except Exception as error:  # Orbax and TensorStore raise bare ones.
        raise _damaged(directory, error) from error
    if metadata is None or metadata.item_metadata is None:
        raise _damaged(directory, None)
    return metadata.item_metadata.tree


def _damaged(directory: Path, error: Exception | None) -> SdvarError:
    lines = str(error).splitlines() if error else []
    reason = lines[0][:200] if lines else "its metadata is missing"
    return SdvarError(f"the weights in {directory} are incomplete or damaged: {reason}")
