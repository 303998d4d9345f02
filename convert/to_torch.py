"""From a Flax checkpoint back to a PyTorch state dict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert.mapping import (
    Config,
    buffer_shapes,
    derived_buffer,
    is_derived,
    kind_of,
    parameter_matches,
)
from convert.progress import byte_progress
from sdvar_jax.checkpoint.info import CheckpointInfo, read_info
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.checkpoint.resolve import resolve_model
from sdvar_jax.checkpoint.safetensors_file import write_safetensors
from sdvar_jax.checkpoint.store import PartWeights, load_weights
from sdvar_jax.config import VARConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import atomic_file, check_file_destination, check_free_space

_PTH_SUFFIXES = (".pth", ".pt")
_SUFFIXES = (".safetensors", *_PTH_SUFFIXES)


def export(
    checkpoint: Path | str, output: Path, part: str | None = None, *, show_progress: bool = False
) -> int:
    """Writes one model of a checkpoint as a PyTorch state dict.

    A model converted without a change of dtype comes out as it came in: same keys in the same
    order, same dtypes, same bits. One stored in int8 comes out in floats, its matrices as rounded.

    Args:
      checkpoint: directory or name of a model.
      output: a ``.pth`` or ``.pt`` file (needs PyTorch) or a ``.safetensors`` file.
      part: "var", "vqvae" or "draft"; may be left out where there is one alone.
      show_progress: whether large exports show a bar.

    Returns:
      The number of tensors written.

    Raises:
      SdvarError: a part that is not there, a file that cannot be written, or PyTorch is missing.
    """
    output = Path(output)
    if output.suffix not in _SUFFIXES:
        raise SdvarError(f"cannot tell the format of {output}; end it in {', '.join(_SUFFIXES)}")
    torch = _import_torch() if output.suffix in _PTH_SUFFIXES else None
    check_file_destination(output)
    path = resolve_model(checkpoint)
    info = read_info(path)
    name = _only_part(info, part)
    held = info.parts[name]
    matches = parameter_matches(held.config)
    keys = _keys(held.config, held.torch_dtypes)
    order = [matches[key].flax for key in keys if key in matches]
    state = torch_state_dict(load_weights(path, name, order))
    size = sum(array.nbytes for array in state.values())
    check_free_space(output, size)
    with byte_progress(size, show_progress) as phase, atomic_file(output) as aside:
        count = phase("writing")
        counted = {key: _counted(array, count) for key, array in state.items()}
        if torch is None:
            write_safetensors(aside, counted)
        else:
            tensors = {key: _tensor(torch, array.read()) for key, array in counted.items()}
            torch.save(tensors, aside)
    return len(state)


def stored_dtype(checkpoint: Path | str, part: str | None = None) -> str:
    """The dtype that a model is stored in, see ``PartInfo``; arguments and errors of ``export``."""
    info = read_info(resolve_model(checkpoint))
    return info.parts[_only_part(info, part)].dtype


def torch_state_dict(weights: PartWeights) -> dict[str, LazyArray]:
    """PyTorch key -> array, in the order and dtypes of the source where there was one.

    Without one, every buffer of the original is added, so that it loads there strictly.
    """
    config, matches = weights.config, parameter_matches(weights.config)
    state = {}
    for key, dtype in _keys(config, weights.torch_dtypes).items():
        if key in matches:
            match = matches[key]
            array = weights.arrays[match.flax]
            array = array.transformed(
                match.transform.to_torch, match.transform.torch_shape(array.shape)
            )
        elif key in weights.buffers:
            array = weights.buffers[key]
        elif isinstance(config, VARConfig) and is_derived(key, kind_of(config)):
            array = LazyArray.of(derived_buffer(key, config))
        else:
            array = LazyArray.of(np.zeros(buffer_shapes(config)[key], np.float32))
        state[key] = array if dtype is None else array.cast(_dtype(dtype))
    return state


def _keys(config: Config, source: Mapping[str, str] | None) -> Mapping[str, str | None]:
    """PyTorch key -> dtype (None: as stored) of an export, in its order."""
    return source or dict.fromkeys((*parameter_matches(config), *buffer_shapes(config)))


def _only_part(info: CheckpointInfo, part: str | None) -> str:
    held = ", ".join(info.parts)
    if part is None and len(info.parts) > 1:
        raise SdvarError(f"the checkpoint holds {held}; choose one with --part")
    if part is not None and part not in info.parts:
        raise SdvarError(f"the checkpoint holds no {part}; it holds {held}")
    return part or held


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def _counted(array: LazyArray, count: Any) -> LazyArray:
    def read() -> np.ndarray:
        count(array.nbytes)
        return array.read()

    return LazyArray(array.shape, array.dtype, read)


def _import_torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise SdvarError(
            "writing .pth needs PyTorch; install it (extra 'convert') or export to .safetensors"
        ) from error
    return torch


def _tensor(torch: Any, array: np.ndarray) -> Any:
    # A copy: NumPy may hand out read-only or transposed memory.
    array = np.array(array, order="C")
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)
