"""Samples on disk: a directory of shards, each complete or absent, and what made them.

    settings.json        everything that decides the pictures, and how many there are
    shard-00000.npz      images uint8 [n, side, side, 3], labels int32 [n], first (number of the
                         first picture), statistics and seconds as JSON

A shard is written aside and renamed into place, so a run that is killed leaves whole shards and at
most one hidden partial file, which the next run removes.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import chex
import numpy as np

from sdvar_jax.config.validation import require
from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.atomic import atomic_file
from sdvar_jax.runtime.directories import ensure_directory

SETTINGS_FILE = "settings.json"
_FORMAT = "sdvar-samples"
_VERSION = 1


@dataclasses.dataclass(frozen=True)
class Shard:
    """A stretch of the samples.

    Attributes:
      first: number of its first picture in the whole run.
      images: uint8 [n, side, side, 3].
      labels: int32 [n].
      statistics: counts of the decoder (``DecodingStatistics.to_dict``), or None.
      seconds: seconds a phase.
    """

    first: int
    images: np.ndarray
    labels: np.ndarray
    statistics: Mapping[str, Any] | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)


class SampleDirectory:
    """A directory of shards.

    Attributes:
      path: where it is.
      settings: everything that decides the pictures.
      labels: of all pictures that the run makes, int32 [samples].
      shard_size: pictures a shard; the last may hold fewer.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], labels: np.ndarray, shard_size: int
    ) -> None:
        self.path, self.settings = path, dict(settings)
        self.labels, self.shard_size = np.asarray(labels, np.int32), shard_size

    @classmethod
    def start(
        cls, path: str | Path, settings: Mapping[str, Any], labels: np.ndarray, shard_size: int
    ) -> SampleDirectory:
        """Begins a run, or goes on with one that has the very same settings.

        Args:
          path: the directory; made where it is missing.
          settings: everything that decides the pictures, as plain JSON values.
          labels: of all pictures, int [samples].
          shard_size: pictures a shard.

        Raises:
          SdvarError: the directory holds something else, or samples made with other settings.
        """
        require(shard_size >= 1, f"the shard size must be positive, got {shard_size}")
        path = Path(path).expanduser()
        # As JSON would give them back.
        wanted = json.loads(json.dumps(dict(settings)))
        if (path / SETTINGS_FILE).exists():
            found = cls.open(path)
            differing = _differences(
                {**found.settings, "samples": len(found.labels), "shard_size": found.shard_size},
                {**wanted, "samples": len(labels), "shard_size": shard_size},
            )
            if not np.array_equal(found.labels, labels):
                differing.append("labels")
            if differing:
                raise SdvarError(
                    f"{path} holds samples made with other settings ({', '.join(differing)}); "
                    "choose another directory or repeat the settings"
                )
        else:
            foreign = path.is_dir() and any(not _is_partial(entry) for entry in path.iterdir())
            if foreign:
                raise SdvarError(
                    f"{path} exists and holds no samples ({SETTINGS_FILE} is missing); choose an "
                    "empty or new directory"
                )
            path = ensure_directory(path)
            found = cls(path, wanted, labels, shard_size)
            found._write_settings()
        for entry in path.iterdir():
            if _is_partial(entry):
                entry.unlink(missing_ok=True)
        return found

    @classmethod
    def open(cls, path: str | Path) -> SampleDirectory:
        """Reads what a run wrote, finished or not.

        Raises:
          SdvarError: there are no samples, or their description is damaged.
        """
        path = Path(path).expanduser()
        file = path / SETTINGS_FILE
        try:
            text = file.read_text(encoding="utf-8")
        except OSError as error:
            raise SdvarError(f"no samples in {path}: {SETTINGS_FILE} cannot be read") from error
        try:
            info = json.loads(text)
            sound = info["format"] == _FORMAT and info["version"] == _VERSION
            labels = np.asarray(info["labels"], np.int32)
            found = cls(path, dict(info["settings"]), labels, int(info["shard_size"]))
        except (ValueError, KeyError, TypeError) as error:
            raise SdvarError(f"{file} is damaged or not a description of samples") from error
        require(sound, f"{file} is of another format or version; make the samples anew")
        return found

    def _write_settings(self) -> None:
        info = {
            "format": _FORMAT,
            "version": _VERSION,
            "shard_size": self.shard_size,
            "settings": self.settings,
            "labels": self.labels.tolist(),
        }
        with atomic_file(self.path / SETTINGS_FILE) as aside:
            aside.write_text(json.dumps(info, ensure_ascii=False) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_shards(self) -> int:
        """Shards of the finished run."""
        return -(-len(self.labels) // self.shard_size)

    def shard_path(self, index: int) -> Path:
        """The file of a shard."""
        return self.path / f"shard-{index:05d}.npz"

    def rows(self, index: int) -> slice:
        """Numbers of the pictures of a shard."""
        return slice(index * self.shard_size, min((index + 1) * self.shard_size, len(self)))

    def missing(self) -> list[int]:
        """Shards that are not there, in order."""
        return [i for i in range(self.num_shards) if not self.shard_path(i).exists()]

    @property
    def complete(self) -> bool:
        """Whether every picture is there."""
        return not self.missing()

    def write(self, index: int, shard: Shard) -> None:
        """Writes a shard, whole or not at all."""
        rows = self.rows(index)
        chex.assert_shape(shard.images, (rows.stop - rows.start, None, None, 3))
        arrays = {
            "images": shard.images,
            "labels": np.asarray(shard.labels, np.int32),
            "first": np.asarray(shard.first, np.int64),
            "statistics": np.asarray(json.dumps(shard.statistics)),
            "seconds": np.asarray(json.dumps(dict(shard.seconds))),
        }
        with atomic_file(self.shard_path(index)) as aside, aside.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def read(self, index: int) -> Shard:
        """Reads a shard.

        Raises:
          SdvarError: it is missing, damaged, or holds other pictures than it should.
        """
        path = self.shard_path(index)
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                shard = Shard(
                    first=int(arrays["first"]),
                    images=arrays["images"],
                    labels=arrays["labels"],
                    statistics=json.loads(str(arrays["statistics"])),
                    seconds=json.loads(str(arrays["seconds"])),
                )
        except FileNotFoundError:
            raise SdvarError(
                f"the samples in {self.path} are not complete: {path.name} is missing; run the "
                "same command again to make the rest"
            ) from None
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise SdvarError(f"{path} is damaged ({error}); remove it and make it again") from error
        rows = self.rows(index)
        require(
            shard.first == rows.start and np.array_equal(shard.labels, self.labels[rows]),
            f"{path} holds other pictures than it should; remove it and make it again",
        )
        return shard

    def shards(self) -> Iterator[Shard]:
        """All shards in order, one in memory at a time; ``SdvarError`` where one is missing."""
        for index in range(self.num_shards):
            yield self.read(index)

    @property
    def image_side(self) -> int:
        """Side of the pictures in pixels, as the first shard has them."""
        return int(self.read(0).images.shape[1])


def _is_partial(path: Path) -> bool:
    return path.name.startswith(".") and ".partial" in path.name


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names of settings that differ, nested ones with dots."""
    names: list[str] = []
    for key in sorted({*found, *wanted}):
        ours, theirs = found.get(key), wanted.get(key)
        if ours == theirs:
            continue
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            names += [f"{key}.{name}" for name in _differences(ours, theirs)]
        else:
            names.append(key)
    return names
