"""From PyTorch files to a Flax checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from convert.configure import NO_OVERRIDES, Overrides, infer_var_config, infer_vqvae_config
from convert.mapping import (
    Config,
    buffer_shapes,
    is_derived,
    key_problems,
    kind_of,
    parameter_matches,
)
from convert.progress import byte_progress
from convert.sources import describe_source, read_arrays
from convert.state_dicts import find_state_dicts
from convert.values import value_problems
from sdvar_jax.checkpoint.assembly import abstract_arrays
from sdvar_jax.checkpoint.compatibility import check_compatible, check_draft
from sdvar_jax.checkpoint.eight_bit import Int8Array, may_be_rounded
from sdvar_jax.checkpoint.info import INFO_FILE, INT8, PARTS, STORAGES, CheckpointInfo
from sdvar_jax.checkpoint.lazy import DTYPES, LazyArray
from sdvar_jax.checkpoint.store import PartWeights, save_checkpoint
from sdvar_jax.config import DTypePolicy, VARConfig, VQVAEConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import check_directory_destination, check_free_space

KEEP = "keep"
_T = TypeVar("_T")
StateDict = Mapping[str, LazyArray]

_TITLES = {"var": "VAR", "vqvae": "VQVAE", "draft": "draft VAR"}


@dataclasses.dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
      info: of the checkpoint written.
      notes: what the user should know, a line each.
    """

    info: CheckpointInfo
    notes: tuple[str, ...]


def convert(
    sources: Sequence[Path],
    output: Path,
    *,
    draft: Path | None = None,
    parts: Sequence[str] = PARTS,
    dtype: str = KEEP,
    overrides: Overrides = NO_OVERRIDES,
    prefix: str | None = None,
    class_names: Sequence[str] | None = None,
    storage: str = "orbax",
    overwrite: bool = False,
    show_progress: bool = False,
) -> Report:
    """Converts PyTorch weights to a checkpoint directory, completely or not at all.

    Args:
      sources: files that hold a VAR, a VQVAE or both.
      output: directory to be made.
      draft: file with a smaller VAR for speculative decoding.
      parts: which of "var", "vqvae", "draft" to take.
      dtype: "keep", "float32", "bfloat16" or "float16"; the quantizer stays in float32 unless
        kept as it is. "int8" stores the matrices of VARs in 8 bits (with safetensors storage) and
        everything else as "bfloat16" does.
      overrides: what the tensors leave open.
      prefix: place of the models inside the files, where it is not plain.
      class_names: a name a class.
      storage: "orbax" or "safetensors".
      overwrite: whether a checkpoint already at ``output`` is replaced.
      show_progress: whether large conversions show a bar.

    Returns:
      What was written.

    Raises:
      SdvarError: naming everything that does not fit; nothing is left behind.
    """
    if dtype not in (KEEP, *DTYPES, INT8):
        raise SdvarError(
            f"unknown dtype {dtype!r}; use {KEEP} or one of {', '.join((*DTYPES, INT8))}"
        )
    if storage not in STORAGES:
        raise SdvarError(f"unknown storage {storage!r}; use one of {', '.join(STORAGES)}")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise SdvarError(f"unknown parts {unknown}; use {', '.join(PARTS)}")
    check_directory_destination(output, overwrite=overwrite, marker=INFO_FILE)
    states, notes = _collect(sources, draft, prefix)
    configs = _configure(states, overrides)
    if list(states) == ["vqvae"] and overrides.pyramid is None:
        notes.append(
            f"the VQVAE alone does not tell its pyramid; taken: {configs['vqvae'].pyramid}"
        )
    states, configs = _chosen(states, parts), _chosen(configs, parts)
    _check_shapes(states, configs)
    _check_together(configs)

    names = None if class_names is None else tuple(class_names)
    files = [*sources, *([draft] if draft is not None else [])]
    weights = {part: _weights(states[part], configs[part], dtype) for part in states}
    # Describing the checkpoint refuses what does not belong together, before the long work.
    CheckpointInfo(
        {name: part.info() for name, part in weights.items()}, storage=storage, class_names=names
    )
    size = sum(array.nbytes for state in states.values() for array in state.values())
    check_free_space(output, sum(part.nbytes for part in weights.values()))
    with byte_progress(size, show_progress) as phase:
        count = phase("hashing")
        described = [describe_source(path, count) for path in dict.fromkeys(files)]
        count = phase("checking")
        problems = [
            f"{_TITLES[part]}: {problem}"
            for part, state in states.items()
            for problem in value_problems(
                state, configs[part], _stored_dtypes(weights[part]), count
            )
        ]
        if problems:
            raise SdvarError(f"the weights are refused; {'; '.join(problems)}")
        info = save_checkpoint(
            output,
            var=weights.get("var"),
            vqvae=weights.get("vqvae"),
            draft=weights.get("draft"),
            class_names=names,
            sources=described,
            storage=storage,
            overwrite=overwrite,
            progress=phase("writing"),
        )
    return Report(info, tuple(notes))


def _collect(
    sources: Sequence[Path], draft: Path | None, prefix: str | None
) -> tuple[dict[str, dict[str, LazyArray]], list[str]]:
    """Part -> state dict, and notes."""
    if not sources and draft is None:
        raise SdvarError("nothing to convert; give one or more weights files")
    states: dict[str, dict[str, LazyArray]] = {}
    origins: dict[str, Path] = {}
    notes = []
    for path, as_draft in [
        *((path, False) for path in sources),
        *([(draft, True)] if draft else []),
    ]:
        found = find_state_dicts(read_arrays(path), path, prefix)
        if found.ignored:
            notes.append(
                f"{path}: {len(found.ignored)} tensors outside of the models are left out "
                f"({found.ignored[0]}, ...)"
            )
        named = dict(found.state_dicts)
        if as_draft:
            if "var" not in named:
                raise SdvarError(f"{path} was given as the draft, but holds no VAR")
            named = {"draft": named["var"]}
        for part, state in named.items():
            if part in states:
                raise SdvarError(
                    f"{origins[part]} and {path} both hold a {_TITLES[part]}; give one "
                    "(the smaller of two VARs with --draft)"
                )
            states[part], origins[part] = state, path
    return states, notes


def _chosen(found: Mapping[str, _T], parts: Sequence[str]) -> dict[str, _T]:
    """What was asked for; the rest was of use to configure it."""
    chosen = {part: value for part, value in found.items() if part in parts}
    if not chosen:
        raise SdvarError(f"the files hold none of the parts asked for: {', '.join(parts)}")
    return chosen


def _configure(
    states: Mapping[str, StateDict], overrides: Overrides
) -> dict[str, VARConfig | VQVAEConfig]:
    configs: dict[str, VARConfig | VQVAEConfig] = {}
    pyramid = None
    for part in ("var", "draft"):
        if part in states:
            configs[part] = infer_var_config(states[part], overrides)
            pyramid = pyramid or configs[part].pyramid
    if "vqvae" in states:
        configs["vqvae"] = infer_vqvae_config(states["vqvae"], overrides, pyramid)
    return {part: configs[part] for part in PARTS if part in configs}


def _check_shapes(states: Mapping[str, StateDict], configs: Mapping[str, Config]) -> None:
    problems = []
    for part, config in configs.items():
        state = states[part]
        shapes = {key: array.shape for key, array in state.items()}
        problems += [f"{_TITLES[part]}: {problem}" for problem in key_problems(shapes, config)]
        floats = set(DTYPES.values())
        foreign = [
            f"{key} ({state[key].dtype})"
            for key in parameter_matches(config)
            if key in state and state[key].dtype not in floats
        ]
        if foreign:
            problems.append(f"{_TITLES[part]}: dtypes that are not supported: {', '.join(foreign)}")
    if problems:
        raise SdvarError(f"the weights do not fit; {'; '.join(problems)}")


def _check_together(configs: Mapping[str, VARConfig | VQVAEConfig]) -> None:
    var, vqvae, draft = (configs.get(part) for part in PARTS)
    for one in (var, draft):
        if isinstance(one, VARConfig) and isinstance(vqvae, VQVAEConfig):
            check_compatible(one, vqvae)
    if isinstance(var, VARConfig) and isinstance(draft, VARConfig):
        check_draft(draft, var)


def _weights(state: StateDict, config: Config, dtype: str) -> PartWeights:
    """The state dict laid out for Flax; nothing is read yet."""
    matches = parameter_matches(config)
    floats = {KEEP: "float32", INT8: "bfloat16"}.get(dtype, dtype)
    shapes = abstract_arrays(config, DTypePolicy.of(floats))
    to_int8 = dtype == INT8 and isinstance(config, VARConfig)
    arrays: dict[str, LazyArray] = {}
    for key, match in matches.items():
        wanted = shapes[match.flax]
        array = state[key].transformed(match.transform.to_flax, wanted.shape)
        if to_int8 and may_be_rounded(array):
            array = Int8Array.rounding(array, key)
        elif dtype != KEEP:
            array = array.cast(np.dtype(wanted.dtype))
        arrays[match.flax] = array
    return PartWeights(
        config=config,
        arrays=arrays,
        buffers={
            key: state[key]
            for key in buffer_shapes(config)
            if key in state and not is_derived(key, kind_of(config))
        },
        torch_dtypes={
            key: str(arrays[matches[key].flax].dtype if key in matches else array.dtype)
            for key, array in state.items()
        },
    )


def _stored_dtypes(weights: PartWeights) -> dict[str, np.dtype]:
    return {
        key: weights.arrays[match.flax].dtype
        for key, match in parameter_matches(weights.config).items()
    }
