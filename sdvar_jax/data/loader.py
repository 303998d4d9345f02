"""Endless shuffled batches for training, on grain.

The order is a pure function of the configuration: batch number b holds the positions
``b * batch_size ...`` of the endless sequence of epochs, each epoch its own permutation. So no
picture is lost at the end of an epoch, the state of an iterator is one number, and a resumed
iterator goes on exactly where the saved one stood, on any number of processes.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import TYPE_CHECKING, Any, TypedDict

import jax
import numpy as np

from sdvar_jax.data.source import ImageSource
from sdvar_jax.errors import SdvarError

if TYPE_CHECKING:
    import grain


class Batch(TypedDict):
    """The share of one process in a batch of b pictures.

    Attributes:
      image: float32 ``[b, size, size, 3]`` in ``[-1, 1]``.
      label: int32 ``[b]``.
    """

    image: np.ndarray
    label: np.ndarray


@dataclasses.dataclass(frozen=True)
class LoaderConfig:
    """How batches are made.

    Attributes:
      batch_size: pictures in a batch, over all processes together.
      seed: of the order and the flips.
      shuffle: whether each epoch has a random order of its own.
      flip: whether each picture is mirrored left to right with probability 1/2. Wrong for
        pictures with letters or a direction, such as emoji.
      epochs: passes over the data; None goes on for ever. The last batch of a limited number of
        epochs may be smaller.
      threads: threads that make batches ahead of their use.
      prefetch: batches made ahead.
    """

    batch_size: int
    seed: int = 0
    shuffle: bool = True
    flip: bool = False
    epochs: int | None = None
    threads: int = 2
    prefetch: int = 4

    def __post_init__(self) -> None:
        for name in ("batch_size", "threads", "prefetch"):
            if getattr(self, name) < 1:
                raise SdvarError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise SdvarError(f"the seed must not be negative, got {self.seed}")
        if self.epochs is not None and self.epochs < 1:
            raise SdvarError(f"epochs must be at least 1, or none for ever, got {self.epochs}")


def make_loader(
    source: ImageSource,
    config: LoaderConfig,
    *,
    process_index: int | None = None,
    process_count: int | None = None,
) -> grain.DatasetIterator[Batch]:
    """An iterator over the batches of ``source``.

    ``get_state()`` tells where it stands, as a small dictionary that JSON can hold;
    ``set_state(state)`` puts an iterator made with the same source and configuration there.

    Args:
      source: the pictures. Decoded to memory they are gathered a batch at a time.
      config: how batches are made.
      process_index: which share of each batch this process makes; None asks JAX.
      process_count: among how many processes batches are shared; None asks JAX.

    Raises:
      SdvarError: grain is not installed, the source is empty or the batch size is not a multiple
        of the number of processes.
    """
    grain = _import_grain()
    index = jax.process_index() if process_index is None else process_index
    count = jax.process_count() if process_count is None else process_count
    if not 0 <= index < count:
        raise ValueError(f"process {index} of {count}")
    if config.batch_size % count:
        raise SdvarError(
            f"a batch of {config.batch_size} cannot be shared among {count} processes; "
            "choose a multiple"
        )
    if not len(source):
        raise SdvarError("the data set holds no picture")
    batches = grain.MapDataset.source(_Batches(source, config, index, count))
    options = grain.ReadOptions(
        num_threads=config.threads, prefetch_buffer_size=max(config.prefetch, config.threads)
    )
    return iter(batches.to_iter_dataset(options))


def to_signed(images: np.ndarray) -> np.ndarray:
    """Maps uint8 0..255 to float32 ``[-1, 1]``, any shape; the loader's only arithmetic."""
    signed = images.astype(np.float32)
    signed *= np.float32(1 / 127.5)
    signed -= np.float32(1)
    return signed


class _Batches:
    """Random access to batches by their number."""

    def __init__(self, source: ImageSource, config: LoaderConfig, index: int, count: int) -> None:
        self._source = source
        self._config = config
        self._index = index
        self._count = count
        # A batch touches two epochs at most unless it is larger than the data set.
        self._order = functools.lru_cache(maxsize=4)(self._draw_order)

    def __len__(self) -> int:
        if self._config.epochs is None:
            return sys.maxsize
        return -(-self._config.epochs * len(self._source) // self._config.batch_size)

    def __repr__(self) -> str:
        return f"batches of {self._config.batch_size} from {len(self._source)} pictures"

    def __getitem__(self, number: Any) -> Batch:
        number = int(number)
        start = number * self._config.batch_size
        stop = start + self._config.batch_size
        if self._config.epochs is not None:
            stop = min(stop, self._config.epochs * len(self._source))
        positions = np.arange(start, stop, dtype=np.int64)  # [batch]
        share = slice(
            len(positions) * self._index // self._count,
            len(positions) * (self._index + 1) // self._count,
        )
        images, labels = self._source.gather(self._indices(positions)[share])
        if self._config.flip:
            images = _flip(images, self._coins(number, len(positions))[share])
        return {"image": to_signed(images), "label": labels}

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        epochs, places = np.divmod(positions, len(self._source))
        if not self._config.shuffle:
            return places
        indices = np.empty_like(places)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            indices[here] = self._order(epoch)[places[here]]
        return indices

    def _draw_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._config.seed, 0, epoch]).permutation(len(self._source))

    def _coins(self, number: int, length: int) -> np.ndarray:
        return np.random.default_rng([self._config.seed, 1, number]).random(length) < 0.5


def _flip(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mirrors the chosen pictures: ``[m, size, size, 3]`` and bool ``[m]``."""
    return np.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def _import_grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise SdvarError(
            "grain, which feeds the training, is not installed; "
            "install the extra: pip install 'sdvar-jax[train]'"
        ) from error
    return grain
