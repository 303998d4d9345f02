"""The classes a user asks for, and a sensible handful where none is named."""

from __future__ import annotations

from collections.abc import Sequence

from sdvar_jax.errors import SdvarError
from sdvar_jax.labels import class_names, resolve_label, resolve_labels

_HANDFUL = 8
# Of ImageNet: goldfish, macaw, golden retriever, red fox, balloon, cheeseburger, cup, valley.
_IMAGENET_HANDFUL = (1, 88, 207, 277, 417, 933, 968, 979)


def parse_labels(words: Sequence[str], names: Sequence[str]) -> list[int]:
    """Class numbers of the words on a command line.

    Args:
      words: each a number, a name, a range such as 3-5, or several of them with commas between.
      names: a name a class.

    Raises:
      SdvarError: a word stands for no class.
    """
    labels: list[int] = []
    for word in words:
        labels.extend(_whole_entry(word, names) or resolve_labels(word, names))
    return labels


def default_labels(names: Sequence[str]) -> list[int]:
    """Eight classes that show the range of a model; all of them if there are fewer."""
    if tuple(names) == class_names():
        return list(_IMAGENET_HANDFUL)
    count, last = min(_HANDFUL, len(names)), len(names) - 1
    # Evenly spread, the first and the last class included.
    return [round(index * last / max(1, count - 1)) for index in range(count)]


def _whole_entry(word: str, names: Sequence[str]) -> list[int]:
    """The class whose whole name, commas included, is ``word``; none otherwise."""
    if "," not in word:
        return []
    try:
        return [resolve_label(word, names)]
    except SdvarError:
        return []
