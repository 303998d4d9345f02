"""What a checkpoint directory says about itself: ``checkpoint.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdvar_jax.checkpoint.compatibility import check_compatible, check_draft
from sdvar_jax.checkpoint.sampling import check_sampling, sampling_from_dict, sampling_to_dict
from sdvar_jax.config import VARConfig, VQVAEConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling.config import SamplingConfig

FORMAT_VERSIONS = (1, 2)
"""Of the directory's layout: 2 where a model is stored in int8, which 1 did not know."""

INFO_FILE = "checkpoint.json"
PARTS = ("var", "vqvae", "draft")
STORAGES = ("orbax", "safetensors")
INT8 = "int8"


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that a checkpoint was converted from.

    Attributes:
      name: its file name, without directories.
      sha256: of its bytes, hexadecimal.
      size: in bytes.
    """

    name: str
    sha256: str
    size: int


@dataclasses.dataclass(frozen=True)
class PartInfo:
    """One model of a checkpoint.

    Attributes:
      config: its shapes.
      dtype: the widest dtype among its weights ("float32", "bfloat16", "float16"), or "int8" where
        matrices are stored in 8 bits (see ``eight_bit``) and the rest in floats.
      parameters: number of weights.
      size: of the weights in bytes as they are stored.
      torch_dtypes: PyTorch key -> dtype in the order of the source, for an export that equals it;
        None where the model was not converted.
    """

    config: VARConfig | VQVAEConfig
    dtype: str
    parameters: int
    size: int
    torch_dtypes: Mapping[str, str] | None = None

    @property
    def value_dtype(self) -> str:
        """The float dtype that holds every weight as it was stored; float32 for int8."""
        return "float32" if self.dtype == INT8 else self.dtype


@dataclasses.dataclass(frozen=True)
class CheckpointInfo:
    """Everything about a checkpoint but its weights.

    Attributes:
      parts: "var" (the target), "vqvae", "draft" -> what is there.
      storage: "orbax" or "safetensors".
      sources: the files it was converted from.
      class_names: a name a class, None where unknown.
      sampling: settings that suit the models, used where the user gives none; None for the
        package's.
      created_by: program and version that wrote it.
    """

    parts: Mapping[str, PartInfo]
    storage: str = "orbax"
    sources: tuple[Source, ...] = ()
    class_names: tuple[str, ...] | None = None
    sampling: SamplingConfig | None = None
    created_by: str = ""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.parts) - set(PARTS))
        if unknown or not self.parts:
            raise SdvarError(f"a checkpoint holds one or more of {PARTS}, not {unknown or 'none'}")
        if self.storage not in STORAGES:
            raise SdvarError(f"unknown storage {self.storage!r}; use one of {STORAGES}")
        if self._holds_int8 and self.storage != "safetensors":
            raise SdvarError(
                f"int8 weights cannot be stored as {self.storage}; use the storage safetensors"
            )
        var, draft = self.var_config, self.draft_config
        if var is not None and self.vqvae_config is not None:
            check_compatible(var, self.vqvae_config)
        if var is not None and draft is not None:
            check_draft(draft, var)
        with_classes = var or draft
        if self.class_names is not None and with_classes is not None:
            names, classes = len(self.class_names), with_classes.num_classes
            if names != classes:
                raise SdvarError(f"{names} class names were given for {classes} classes")
        if self.sampling is not None:
            some = next(iter(self.parts.values())).config
            check_sampling(self.sampling, some.pyramid.num_scales)

    @property
    def var_config(self) -> VARConfig | None:
        """Configuration of the target VAR, if there is one."""
        return self._config("var")

    @property
    def vqvae_config(self) -> VQVAEConfig | None:
        """Configuration of the VQVAE, if there is one."""
        return self._config("vqvae")

    @property
    def draft_config(self) -> VARConfig | None:
        """Configuration of the draft VAR, if there is one."""
        return self._config("draft")

    @property
    def format_version(self) -> int:
        """Of the directory's layout: the first that knows all that is there."""
        return FORMAT_VERSIONS[1 if self._holds_int8 else 0]

    @property
    def _holds_int8(self) -> bool:
        return any(part.dtype == INT8 for part in self.parts.values())

    def _config(self, part: str) -> Any:
        return self.parts[part].config if part in self.parts else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        parts = {
            name: {
                "config": part.config.to_dict(),
                "dtype": part.dtype,
                "parameters": part.parameters,
                "size": part.size,
                "torch_dtypes": None if part.torch_dtypes is None else dict(part.torch_dtypes),
            }
            for name, part in self.parts.items()
        }
        return {
            "format_version": self.format_version,
            "created_by": self.created_by,
            "storage": self.storage,
            "parts": parts,
            "sources": [dataclasses.asdict(source) for source in self.sources],
            "class_names": None if self.class_names is None else list(self.class_names),
            "sampling": None if self.sampling is None else sampling_to_dict(self.sampling),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckpointInfo:
        """Reads what ``to_dict`` wrote.

        Raises:
          KeyError, TypeError, ValueError, AttributeError: it is something else.
          SdvarError: a configuration or a setting is refused.
        """
        parts = {
            name: PartInfo(
                config=(VQVAEConfig if name == "vqvae" else VARConfig).from_dict(part["config"]),
                dtype=part["dtype"],
                parameters=int(part["parameters"]),
                size=int(part["size"]),
                torch_dtypes=part["torch_dtypes"],
            )
            for name, part in data["parts"].items()
        }
        names = data["class_names"]
        sampling = data.get("sampling")  # checkpoints of earlier versions have none
        return cls(
            parts=parts,
            storage=data["storage"],
            sources=tuple(Source(**source) for source in data["sources"]),
            class_names=None if names is None else tuple(names),
            sampling=None if sampling is None else sampling_from_dict(sampling),
            created_by=data["created_by"],
        )


def read_info(directory: Path | str) -> CheckpointInfo:
    """Reads what a checkpoint says about itself; no weights are touched.

    Raises:
      SdvarError: there is no checkpoint, it is of another version, or its description is damaged.
    """
    path = Path(directory) / INFO_FILE
    if not Path(directory).is_dir():
        raise SdvarError(f"no checkpoint directory at {directory}")
    try:
        data = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise SdvarError(
            f"{directory} is not a checkpoint: it holds no {INFO_FILE}; make one with "
            "`sdvar convert`"
        ) from error
    except (OSError, ValueError) as error:
        raise SdvarError(f"cannot read {path}: {error}; convert the checkpoint again") from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if version not in FORMAT_VERSIONS:
        raise SdvarError(
            f"{directory} has checkpoint format {version}, this program reads "
            f"{' and '.join(map(str, FORMAT_VERSIONS))}; convert it again or use the version that "
            "wrote it"
        )
    try:
        return CheckpointInfo.from_dict(data)
    except SdvarError as error:
        raise SdvarError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SdvarError(
            f"{path} is damaged ({type(error).__name__}: {error}); convert the checkpoint again"
        ) from error


def write_info(directory: Path, info: CheckpointInfo) -> None:
    """Writes ``checkpoint.json`` into a directory that is being made."""
    text = json.dumps(info.to_dict(), indent=1)
    (directory / INFO_FILE).write_text(text + "\n", "utf-8")
