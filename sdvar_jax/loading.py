"""From the names of checkpoints to models that are ready to sample."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdvar_jax.checkpoint import (
    CheckpointInfo,
    check_compatible,
    check_draft,
    named_models,
    read_info,
    resolve_model,
)
from sdvar_jax.checkpoint.info import PartInfo
from sdvar_jax.config import DTypePolicy
from sdvar_jax.errors import SdvarError
from sdvar_jax.labels import default_names
from sdvar_jax.sampling.config import SamplingConfig

# What only finds and describes models runs without JAX, so that it answers at once.
if TYPE_CHECKING:
    from sdvar_jax.checkpoint import PartWeights
    from sdvar_jax.models import VQVAE
    from sdvar_jax.pipeline import Pipeline

DEFAULT_MODEL = "emoji"
"""The pair of models that comes with the package."""

AUTO = "auto"

StrPath = str | Path
Progress = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class ModelPart:
    """One model of a checkpoint directory.

    Attributes:
      directory: of the checkpoint.
      name: "var", "vqvae" or "draft".
      info: what the checkpoint says about it.
    """

    directory: Path
    name: str
    info: PartInfo

    @property
    def config(self) -> Any:
        """Its ``VARConfig`` or ``VQVAEConfig``."""
        return self.info.config

    def abstract(self, dtypes: DTypePolicy | None = None) -> Any:
        """The ``VAR`` or ``VQVAE`` that ``load`` gives, with shapes in place of arrays."""
        from sdvar_jax.checkpoint import abstract_model

        return abstract_model(self.config, dtypes or DTypePolicy.of(self.info.value_dtype))

    def weights(self) -> PartWeights:
        """Its weights as they are stored, read only when needed."""
        from sdvar_jax.checkpoint import load_weights

        return load_weights(self.directory, self.name)

    def load(self, dtypes: DTypePolicy | None = None, progress: Progress | None = None) -> Any:
        """The ``VAR`` or ``VQVAE`` itself."""
        from sdvar_jax.checkpoint import load_checkpoint

        parts = (self.name,)
        checkpoint = load_checkpoint(self.directory, dtypes, parts=parts, progress=progress)
        return getattr(checkpoint, self.name)


@dataclasses.dataclass(frozen=True)
class ModelFiles:
    """Models that belong together, found but not loaded.

    Attributes:
      target: the large model.
      vqvae: the VQVAE.
      draft: the small model, or None.
      class_names: a name a class.
      sampling: settings that the target's checkpoint names; None where it names none.
    """

    target: ModelPart
    vqvae: ModelPart
    draft: ModelPart | None
    class_names: tuple[str, ...]
    sampling: SamplingConfig | None = None

    @property
    def default_sampling(self) -> SamplingConfig:
        """Settings where the user gives none: the checkpoint's, else the package's."""
        return SamplingConfig() if self.sampling is None else self.sampling

    def without_draft(self) -> ModelFiles:
        """The same, with no draft to be loaded."""
        return dataclasses.replace(self, draft=None)

    @property
    def parts(self) -> tuple[ModelPart, ...]:
        """All models that would be loaded."""
        return tuple(part for part in (self.target, self.vqvae, self.draft) if part is not None)

    @property
    def size(self) -> int:
        """Bytes of all weights as they are stored."""
        return sum(part.info.size for part in self.parts)

    def load(
        self,
        dtypes: DTypePolicy | None = None,
        *,
        progress: Progress | None = None,
        meanwhile: Callable[[Pipeline], Any] | None = None,
        **options: Any,
    ) -> Pipeline:
        """Loads everything; the pipeline samples with the checkpoint's settings by default.

        Args:
          dtypes: of parameters and arithmetic; None as stored.
          progress: called with the bytes read.
          meanwhile: called in a thread of its own, while weights are read, with a pipeline that has
            none yet but whose compiled programs are those of the one that is returned:
            ``lambda pipeline: pipeline.compile(8)``.
          **options: further arguments of ``Pipeline``.
        """
        from sdvar_jax.pipeline import Pipeline

        parts = (self.target, self.vqvae, self.draft)
        options = {"default_sampling": self.default_sampling, **options}

        def loaded() -> list[Any]:
            return [None if part is None else part.load(dtypes, progress) for part in parts]

        if meanwhile is None:
            return Pipeline(*loaded(), **options)
        abstract: list[Any] = [None if part is None else part.abstract(dtypes) for part in parts]
        planned = Pipeline(*abstract, **options)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        try:
            ready = pool.submit(meanwhile, planned)
            pipeline = planned.with_models(*loaded())
            ready.result()
        finally:
            # What is wrong with a checkpoint is told at once.
            pool.shutdown(wait=False)
        return pipeline


def find_models(
    model: StrPath = DEFAULT_MODEL,
    *,
    draft: StrPath | None = None,
    vqvae: StrPath | None = None,
) -> ModelFiles:
    """Finds the models of a run and checks that they belong together; no weights are read.

    Args:
      model: checkpoint with the target: a directory, the name of a model, or ``hf:OWNER/NAME``.
        Its own VQVAE and draft are used unless others are given.
      draft: checkpoint with the small model: its draft if it has one, else its VAR.
      vqvae: checkpoint with the VQVAE.

    Raises:
      SdvarError: a checkpoint is missing or damaged, lacks a model that is needed, or the models
        do not belong together.
    """
    path, info = read_model_info(model)
    target = _part(path, info, "var")
    if target is None:
        raise SdvarError(f"{model} holds no VAR to sample from; it holds {', '.join(info.parts)}")
    own_vqvae = (
        _part(path, info, "vqvae") if vqvae is None else _part(*read_model_info(vqvae), "vqvae")
    )
    if own_vqvae is None:
        raise SdvarError(
            f"{vqvae or model} holds no VQVAE, which turns tokens into pictures; name the "
            "checkpoint that does (--vqvae), or convert VAR and VQVAE together"
        )
    if draft is None:
        small = _part(path, info, "draft")
    else:
        small_path, small_info = read_model_info(draft)
        small = _part(small_path, small_info, "draft") or _part(small_path, small_info, "var")
        if small is None:
            raise SdvarError(f"{draft} holds no VAR that could be the draft")
    check_compatible(target.config, own_vqvae.config)
    if small is not None:
        check_draft(small.config, target.config)
    names = info.class_names or default_names(target.config.num_classes)
    return ModelFiles(target, own_vqvae, small, names, info.sampling)


def find_vqvae(model: StrPath = DEFAULT_MODEL) -> ModelPart:
    """Finds the VQVAE of a checkpoint; ``SdvarError`` where there is none."""
    path, info = read_model_info(model)
    part = _part(path, info, "vqvae")
    if part is None:
        raise SdvarError(f"{model} holds no VQVAE; it holds {', '.join(info.parts)}")
    return part


def find_var(model: StrPath) -> ModelPart:
    """Finds the VAR of a checkpoint, the target if it has one; ``SdvarError`` without any."""
    path, info = read_model_info(model)
    part = _part(path, info, "var") or _part(path, info, "draft")
    if part is None:
        raise SdvarError(f"{model} holds no VAR; it holds {', '.join(info.parts)}")
    return part


def load_pipeline(
    model: StrPath = DEFAULT_MODEL,
    *,
    draft: StrPath | None = None,
    vqvae: StrPath | None = None,
    dtype: str = AUTO,
    **options: Any,
) -> Pipeline:
    """Loads models that are ready to sample, see ``find_models`` and ``choose_dtypes``.

    Where ``Pipeline.sample`` is given no settings, it uses those of the target's checkpoint.
    """
    files = find_models(model, draft=draft, vqvae=vqvae)
    return files.load(choose_dtypes(dtype), **options)


def load_vqvae(model: StrPath = DEFAULT_MODEL, *, dtype: str = AUTO) -> VQVAE:
    """Loads the VQVAE of a checkpoint."""
    vqvae: VQVAE = find_vqvae(model).load(choose_dtypes(dtype))
    return vqvae


def choose_dtypes(name: str = AUTO) -> DTypePolicy:
    """Dtypes by name; "auto" is bfloat16 on a GPU or TPU and float32 on a CPU."""
    if name == AUTO:
        import jax

        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return DTypePolicy.of(name)


def read_model_info(model: StrPath = DEFAULT_MODEL) -> tuple[Path, CheckpointInfo]:
    """Where a checkpoint is and what it says about itself; no weights are read.

    Args:
      model: a directory, the name of a model, or ``hf:OWNER/NAME``.

    Raises:
      SdvarError: there is no such checkpoint, or its description is damaged.
    """
    if (
        str(model) == DEFAULT_MODEL
        and not Path(model).is_dir()
        and DEFAULT_MODEL not in named_models()
    ):
        raise SdvarError(
            f"the model {DEFAULT_MODEL!r} is not part of this installation; name a checkpoint "
            "(--model DIR), such as `sdvar convert` makes"
        )
    path = resolve_model(model)
    return path, read_info(path)


def _part(path: Path, info: CheckpointInfo, name: str) -> ModelPart | None:
    return ModelPart(path, name, info.parts[name]) if name in info.parts else None
