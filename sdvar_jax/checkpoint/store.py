"""Saving and loading whole checkpoints: a directory of models with their description.

::

    DIR/checkpoint.json       what is there (see ``info``)
    DIR/var/                  Orbax weights of the target, or var.safetensors
    DIR/vqvae/                of the VQVAE
    DIR/draft/                of the draft
    DIR/buffers.safetensors   tensors kept only to export what came in

The file of a VAR may hold its matrices in 8 bits, half the size of bfloat16: ``NAME`` in int8 and
``NAME.scale``, one float32 a column (see ``eight_bit``). Orbax directories hold floats alone.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdvar_jax.checkpoint.assembly import (
    Config,
    Model,
    abstract_arrays,
    assemble,
    check_arrays,
)
from sdvar_jax.checkpoint.eight_bit import (
    Int8Array,
    joined_arrays,
    may_be_rounded,
    stored_arrays,
)
from sdvar_jax.checkpoint.info import (
    INFO_FILE,
    INT8,
    CheckpointInfo,
    PartInfo,
    Source,
    read_info,
    write_info,
)
from sdvar_jax.checkpoint.lazy import DTYPES, LazyArray
from sdvar_jax.checkpoint.resolve import resolve_model
from sdvar_jax.checkpoint.safetensors_file import read_safetensors, write_safetensors
from sdvar_jax.config import DTypePolicy, VARConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.models import VAR, VQVAE
from sdvar_jax.runtime.atomic import (
    atomic_directory,
    check_directory_destination,
    check_free_space,
)
from sdvar_jax.sampling.config import SamplingConfig

Progress = Callable[[int], None]
Sharding = jax.sharding.Sharding | Callable[[str, jax.ShapeDtypeStruct], jax.sharding.Sharding]

_BUFFERS_FILE = "buffers.safetensors"
_WIDEST_FIRST = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class PartWeights:
    """The weights of one model, ready to be saved.

    Attributes:
      config: of the model.
      arrays: dotted path -> array, exactly the model's parameters.
      buffers: PyTorch key -> array, kept only for the way back to PyTorch.
      torch_dtypes: see ``PartInfo``.
    """

    config: Config
    arrays: Mapping[str, LazyArray]
    buffers: Mapping[str, LazyArray] = dataclasses.field(default_factory=dict)
    torch_dtypes: Mapping[str, str] | None = None

    @classmethod
    def of(cls, model: Model | PartWeights) -> PartWeights:
        """The weights of a model; weights stay as they are."""
        if isinstance(model, PartWeights):
            return model
        leaves = nnx.to_flat_state(nnx.state(model, nnx.Param))
        return cls(
            config=model.config,
            arrays={".".join(map(str, path)): LazyArray.of(leaf[...]) for path, leaf in leaves},
        )

    def cast(self, dtype: str) -> PartWeights:
        """The same in another dtype, to be stored in it.

        Args:
          dtype: "float32", "bfloat16" or "float16"; arrays in 8 bits become floats as well.
        """
        arrays = {path: array.cast(DTYPES[dtype]) for path, array in self.arrays.items()}
        return dataclasses.replace(self, arrays=arrays)

    def rounded_to_int8(self, others: str | None = None) -> PartWeights:
        """The same with its matrices in 8 bits, for ``save_checkpoint`` with safetensors storage.

        They read as float32: what the 8 bits stand for, at most 1/254 of the largest magnitude of
        a column from what they were. Arrays that are in 8 bits already stay as they are.

        Args:
          others: dtype of vectors and of matrices of few rows; None for the one that each has.

        Raises:
          SdvarError: the model is a VQVAE, whose weights are stored in floats.
        """
        if not isinstance(self.config, VARConfig):
            raise SdvarError("a VQVAE cannot be stored in int8; use bfloat16")
        rest = self if others is None else self.cast(others)
        arrays = {
            path: Int8Array.rounding(array, path) if may_be_rounded(array) else rest.arrays[path]
            for path, array in self.arrays.items()
        }
        return dataclasses.replace(self, arrays=arrays)

    def stored_arrays(self) -> dict[str, LazyArray]:
        """Name in the file -> array: the arrays, those in 8 bits as numbers and scales."""
        return {
            name: stored
            for path, array in self.arrays.items()
            for name, stored in stored_arrays(path, array).items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays and buffers as they are stored."""
        arrays = (*self.stored_arrays().values(), *self.buffers.values())
        return sum(array.nbytes for array in arrays)

    def info(self) -> PartInfo:
        """The description that goes into ``checkpoint.json``."""
        check_arrays({path: array.shape for path, array in self.arrays.items()}, self.config)
        found = {array.dtype for array in self.arrays.values()}
        foreign = sorted(str(dtype) for dtype in found - set(DTYPES.values()))
        if foreign:
            raise SdvarError(f"weights must be one of {', '.join(DTYPES)}, not {foreign}")
        widest = next(name for name in _WIDEST_FIRST if DTYPES[name] in found)
        return PartInfo(
            config=self.config,
            dtype=INT8 if _any_int8(self.arrays) else widest,
            parameters=sum(array.size for array in self.arrays.values()),
            size=sum(array.nbytes for array in self.stored_arrays().values()),
            torch_dtypes=self.torch_dtypes,
        )


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Loaded models.

    Attributes:
      var: the target VAR, None where the checkpoint has none or it was not asked for.
      vqvae: the VQVAE, likewise.
      draft: the draft VAR, likewise.
      info: what the checkpoint says about itself.
    """

    var: VAR | None
    vqvae: VQVAE | None
    draft: VAR | None
    info: CheckpointInfo


def save_checkpoint(
    directory: Path | str,
    *,
    var: VAR | PartWeights | None = None,
    vqvae: VQVAE | PartWeights | None = None,
    draft: VAR | PartWeights | None = None,
    class_names: Sequence[str] | None = None,
    sampling: SamplingConfig | None = None,
    sources: Sequence[Source] = (),
    storage: str = "orbax",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CheckpointInfo:
    """Writes a checkpoint completely or not at all.

    Args:
      directory: to be made.
      var: the target, a model or its weights.
      vqvae: the VQVAE.
      draft: the draft.
      class_names: a name a class.
      sampling: settings that suit the models; None for the package's.
      sources: files that the weights come from.
      storage: "orbax", or "safetensors" for one file a model; the one for weights in 8 bits
        (``PartWeights.rounded_to_int8``).
      overwrite: whether a checkpoint that is already there is replaced.
      progress: called with the bytes of each array written.

    Returns:
      What was written.

    Raises:
      SdvarError: nothing to save, models that do not belong together, weights in 8 bits with Orbax
        storage, or a directory that cannot be written.
    """
    given = {"var": var, "vqvae": vqvae, "draft": draft}
    parts = {name: PartWeights.of(part) for name, part in given.items() if part is not None}
    info = CheckpointInfo(
        parts={name: part.info() for name, part in parts.items()},
        storage=storage,
        sources=tuple(sources),
        class_names=None if class_names is None else tuple(class_names),
        sampling=sampling,
        created_by=f"sdvar-jax {_version()}",
    )
    check_directory_destination(directory, overwrite=overwrite, marker=INFO_FILE)
    check_free_space(directory, sum(part.nbytes for part in parts.values()))
    with atomic_directory(directory, overwrite, marker=INFO_FILE) as aside:
        for name, part in parts.items():
            if storage == "orbax":
                from sdvar_jax.checkpoint.orbax_store import write_orbax  # slow to import

                write_orbax(aside / name, part.arrays, progress)
            else:
                write_safetensors(_file(aside, name), part.stored_arrays(), progress)
        buffers = {
            f"{name}.{key}": array
            for name, part in parts.items()
            for key, array in part.buffers.items()
        }
        if buffers:
            write_safetensors(aside / _BUFFERS_FILE, buffers)
        write_info(aside, info)
    return info


def load_checkpoint(
    directory: Path | str,
    dtypes: DTypePolicy | None = None,
    *,
    sharding: Sharding | None = None,
    parts: Sequence[str] = ("var", "vqvae", "draft"),
    progress: Progress | None = None,
) -> Checkpoint:
    """Loads the models of a checkpoint, each array straight to its dtype and devices.

    Args:
      directory: of the checkpoint, or the name of a model (see ``resolve_model``).
      dtypes: of parameters and arithmetic; None for the dtype that each model is stored in
        (float32 where that is int8).
      sharding: where arrays go: one for all, or a function of part-qualified path ("var.blocks...")
        and abstract array. None for the default device.
      parts: which models to load, of those that are there.
      progress: called with the bytes read.

    Returns:
      The models and the description.

    Raises:
      SdvarError: there is no checkpoint, or its files are incomplete, damaged, or do not fit its
        configuration.
    """
    path = resolve_model(directory)
    info = read_info(path)
    models: dict[str, Any] = {"var": None, "vqvae": None, "draft": None}
    for name in parts:
        if name in info.parts:
            part = info.parts[name]
            policy = dtypes or DTypePolicy.of(part.value_dtype)
            models[name] = _load_part(path, info, name, policy, sharding, progress)
    return Checkpoint(info=info, **models)


def load_weights(
    directory: Path | str, part: str, order: Sequence[str] | None = None
) -> PartWeights:
    """The weights of one model as they are stored, read only when needed.

    What is stored in 8 bits reads as float32, and is stored again bit for bit.

    Args:
      directory: of the checkpoint.
      part: "var", "vqvae" or "draft".
      order: all paths, as they are going to be read; reading another way is slower.

    Raises:
      SdvarError: there is no such part, or files are incomplete or damaged.
    """
    path = resolve_model(directory)
    info = read_info(path)
    if part not in info.parts:
        raise SdvarError(f"{directory} holds no {part}; it holds {', '.join(info.parts)}")
    config = info.parts[part].config
    arrays: Mapping[str, LazyArray]
    if info.storage == "safetensors":
        arrays = _read_file(path, info, part)
    else:
        from sdvar_jax.checkpoint.orbax_store import orbax_arrays

        arrays = orbax_arrays(path / part, order)
    check_arrays({name: array.shape for name, array in arrays.items()}, config)
    buffers = {}
    if (path / _BUFFERS_FILE).exists():
        prefix = f"{part}."
        buffers = {
            key.removeprefix(prefix): array
            for key, array in read_safetensors(path / _BUFFERS_FILE).items()
            if key.startswith(prefix)
        }
    return PartWeights(config, arrays, buffers, info.parts[part].torch_dtypes)


def _load_part(
    path: Path,
    info: CheckpointInfo,
    name: str,
    dtypes: DTypePolicy,
    sharding: Sharding | None,
    progress: Progress | None,
) -> Model:
    config = info.parts[name].config
    stored: Mapping[str, LazyArray] = {}
    if info.storage == "safetensors":
        stored = _read_file(path, info, name)
        shapes = {key: array.shape for key, array in stored.items()}
    else:
        from sdvar_jax.checkpoint.orbax_store import orbax_shapes, read_orbax

        shapes = orbax_shapes(path / name)
    check_arrays(shapes, config)
    wanted = {
        key: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=_sharding_of(sharding, f"{name}.{key}", leaf)
        )
        for key, leaf in abstract_arrays(config, dtypes).items()
    }
    if info.storage == "orbax":
        return assemble(config, read_orbax(path / name, wanted, progress), dtypes)
    arrays = {}
    for key, leaf in wanted.items():
        arrays[key] = jax.device_put(
            np.ascontiguousarray(stored[key].read()).astype(leaf.dtype), leaf.sharding
        )
        if progress is not None:
            progress(sum(array.nbytes for array in stored_arrays(key, stored[key]).values()))
    return assemble(config, arrays, dtypes)


def _read_file(directory: Path, info: CheckpointInfo, part: str) -> dict[str, LazyArray]:
    """Dotted path -> array of one ``.safetensors`` file, which must be what ``info`` says."""
    file = _file(directory, part)
    arrays = joined_arrays(read_safetensors(file), file)
    if _any_int8(arrays) != (info.parts[part].dtype == INT8):
        raise SdvarError(
            f"{file} is not the file that {INFO_FILE} describes, which says that it is in "
            f"{info.parts[part].dtype}; convert the checkpoint again"
        )
    return arrays


def _any_int8(arrays: Mapping[str, LazyArray]) -> bool:
    return any(isinstance(array, Int8Array) for array in arrays.values())


def _sharding_of(
    sharding: Sharding | None, path: str, leaf: jax.ShapeDtypeStruct
) -> jax.sharding.Sharding:
    if sharding is None:
        return jnp.zeros(()).sharding
    return sharding(path, leaf) if callable(sharding) else sharding


def _file(directory: Path, part: str) -> Path:
    return directory / f"{part}.safetensors"


def _version() -> str:
    try:
        return importlib.metadata.version("sdvar-jax")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
