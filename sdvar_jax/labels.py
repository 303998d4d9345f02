"""Class labels by number or by name.

A list of class names is a sequence of strings, one a class, in the order of the class numbers; a
string may hold several synonyms separated by commas. :func:`class_names` is the list of the
ImageNet-1k classes; every other function takes any list, since a checkpoint may carry its own.
"""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import re
from collections.abc import Sequence

from sdvar_jax.errors import SdvarError

# Python refuses to read integers of thousands of digits; no class number comes near this many.
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}")
_RANGE = re.compile(r"([0-9]+)\s*-\s*([0-9]+)")
_SUGGESTIONS = 3


@functools.cache
def class_names() -> tuple[str, ...]:
    """Names of the 1,000 ImageNet-1k classes in the order of the ILSVRC 2012 labels.

    The order is that of the sorted WordNet identifiers (n01440764 first); the names are the
    comma-separated lemmas of each WordNet synset.
    """
    text = importlib.resources.files("sdvar_jax") / "assets" / "imagenet_classes.txt"
    return tuple(text.read_text(encoding="utf-8").splitlines())


def default_names(num_classes: int) -> tuple[str, ...]:
    """Names for a model that carries none: ImageNet's if it has 1,000 classes, else "class N"."""
    if num_classes == len(class_names()):
        return class_names()
    return tuple(f"class {number}" for number in range(num_classes))


def short_name(label: int, names: Sequence[str]) -> str:
    """The first of a class's synonyms, for captions."""
    return names[resolve_label(label, names)].split(",")[0].strip()


def resolve_label(label: str | int, names: Sequence[str]) -> int:
    """The class number that a number or a name stands for.

    Names are compared without regard to case or to extra spaces. A class's whole entry ("crane")
    goes before the first of several synonyms ("tub, vat"), and that before the others ("bathtub,
    bathing tub, bath, tub"), so that every class can be had by name unless two are called exactly
    the same.

    Args:
      label: a class number, as a number or as text, or a class name. Text that is a number is
        always a number.
      names: the class names, see the module's docstring.

    Returns:
      The class number, 0 <= number < len(names).

    Raises:
      SdvarError: the number is out of range, or no class or more than one has that name.
    """
    if isinstance(label, str):
        text = _normalised(label)
        if _NUMBER.fullmatch(text) is None:
            return _number_of_name(text, tuple(names))
        label = int(text)
    if not 0 <= label < len(names):
        raise SdvarError(f"label {label} is out of range; give one from 0 to {len(names) - 1}")
    return int(label)


def resolve_labels(text: str, names: Sequence[str]) -> tuple[int, ...]:
    """The class numbers of a comma-separated list such as "207, tabby cat, 3-5".

    An item is a class number, a name, or a range of numbers with both ends included. Since commas
    separate the items, a name that itself holds a comma cannot stand in a list: give one synonym
    of it or its number.

    Args:
      text: the list as the user typed it; repeated classes stay repeated.
      names: the class names, see the module's docstring.

    Returns:
      The class numbers in the order given; at least one.

    Raises:
      SdvarError: an item is empty or a range runs backwards, or see :func:`resolve_label`.
    """
    labels: list[int] = []
    for item in text.split(","):
        item = item.strip()
        if not item:
            raise SdvarError(
                f"empty label in {text!r}; write numbers, names or ranges: 207, tabby cat, 3-5"
            )
        ends = _RANGE.fullmatch(item)
        if ends is None:
            labels.append(resolve_label(item, names))
            continue
        first, last = (resolve_label(end, names) for end in ends.groups())
        if first > last:
            raise SdvarError(f"the label range {item} runs backwards; write {last}-{first}")
        labels.extend(range(first, last + 1))
    return tuple(labels)


def _normalised(name: str) -> str:
    return " ".join(name.casefold().split())


@functools.lru_cache(maxsize=8)
def _numbers_by_name(names: tuple[str, ...]) -> tuple[dict[str, list[int]], ...]:
    """Class numbers by whole entry, by first synonym and by any synonym, in this order."""
    whole: dict[str, list[int]] = {}
    first: dict[str, list[int]] = {}
    every: dict[str, list[int]] = {}
    for number, entry in enumerate(names):
        synonyms = [_normalised(synonym) for synonym in entry.split(",")]
        whole.setdefault(_normalised(entry), []).append(number)
        first.setdefault(synonyms[0], []).append(number)
        for synonym in dict.fromkeys(synonyms):
            every.setdefault(synonym, []).append(number)
    return whole, first, every


def _number_of_name(name: str, names: tuple[str, ...]) -> int:
    tiers = _numbers_by_name(names)
    for tier in tiers:
        numbers = tier.get(name, [])
        if len(numbers) == 1:
            return numbers[0]
        if numbers:
            raise SdvarError(
                f"the class name {name!r} is ambiguous: {_listed(numbers, names)}; give the number"
            )
    every = tiers[-1]
    close = difflib.get_close_matches(name, every, n=_SUGGESTIONS) if name else []
    numbers = list(dict.fromkeys(number for match in close for number in every[match]))
    hint = f"did you mean {_listed(numbers, names)}? " if numbers else ""
    raise SdvarError(
        f"unknown class name {name!r}; {hint}Give a number from 0 to {len(names) - 1} or a name"
    )


def _listed(numbers: Sequence[int], names: Sequence[str]) -> str:
    return ", ".join(f"{number} ({names[number].split(',')[0].strip()})" for number in numbers)
