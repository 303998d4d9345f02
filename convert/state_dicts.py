"""Finding the state dicts of VAR and VQVAE in a file, whatever they are wrapped in."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from convert.mapping import is_known
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.errors import SdvarError

KINDS = ("var", "vqvae")
# Data-parallel training and torch.compile put these between the names of modules.
_WRAPPERS = frozenset({"module", "_orig_mod"})
# Fewer known keys than this at one place are chance ("head.weight" is a common name).
_FEWEST = 8


@dataclasses.dataclass(frozen=True)
class Found:
    """What a file holds.

    Attributes:
      state_dicts: "var", "vqvae" -> key without prefixes -> array, in the file's order.
      ignored: keys outside of them, such as an optimizer's.
    """

    state_dicts: Mapping[str, dict[str, LazyArray]]
    ignored: tuple[str, ...]


def find_state_dicts(
    arrays: Mapping[str, LazyArray], path: Path, prefix: str | None = None
) -> Found:
    """Finds the state dicts by the places where keys of VAR and VQVAE gather.

    This covers plain state dicts, the original trainer's checkpoints, ``module.`` and
    ``_orig_mod.`` in any order, and both models in one file under prefixes of any name.

    Args:
      arrays: dotted place -> array.
      path: of the file, for messages.
      prefix: look below this place alone.

    Raises:
      SdvarError: there is no model, or more than one of a kind.
    """
    keys = _without_wrappers(arrays, path)
    if prefix is not None:
        keys = {key: place for key, place in keys.items() if key.startswith(f"{prefix}.")}
        if not keys:
            raise SdvarError(f"{path} holds nothing below {prefix!r}")
    places = {kind: _place_of(kind, keys, path) for kind in KINDS}
    if all(place is None for place in places.values()):
        some = ", ".join(list(keys)[:3])
        raise SdvarError(
            f"{path} holds neither a VAR nor a VQVAE: its {len(keys)} keys ({some}, ...) are "
            "another model's"
        )
    state_dicts: dict[str, dict[str, LazyArray]] = {
        kind: {} for kind in KINDS if places[kind] is not None
    }
    ignored = []
    for key, place in keys.items():
        kind = _kind_of(key, places)
        if kind is None:
            ignored.append(place)
        else:
            at = places[kind] or ""
            state_dicts[kind][key[len(at) :]] = arrays[place]
    return Found(state_dicts, tuple(ignored))


def _without_wrappers(arrays: Mapping[str, LazyArray], path: Path) -> dict[str, str]:
    """Key without wrappers -> key as it is in the file."""
    keys: dict[str, str] = {}
    for place in arrays:
        key = ".".join(part for part in place.split(".") if part not in _WRAPPERS)
        if key in keys:
            raise SdvarError(f"{path} holds {key} twice, as {keys[key]} and as {place}")
        keys[key] = place
    return keys


def _place_of(kind: str, keys: Mapping[str, str], path: Path) -> str | None:
    """The prefix (with its dot) below which the keys of a kind gather; None if nowhere."""
    votes: collections.Counter[str] = collections.Counter()
    for key in keys:
        parts = key.split(".")
        for start in range(len(parts)):
            if is_known(".".join(parts[start:]), kind):
                votes["".join(f"{part}." for part in parts[:start])] += 1
                break
    places = [place for place, count in votes.items() if count >= _FEWEST]
    if len(places) > 1:
        named = " and ".join(repr(place.rstrip(".")) for place in sorted(places))
        raise SdvarError(
            f"{path} holds more than one {kind.upper()}, under {named}; choose one with --prefix"
        )
    return places[0] if places else None


def _kind_of(key: str, places: Mapping[str, str | None]) -> str | None:
    """Which state dict a key belongs to."""
    around = [kind for kind, place in places.items() if place is not None and key.startswith(place)]
    if not around:
        return None
    longest = max(len(places[kind] or "") for kind in around)
    nearest = [kind for kind in around if len(places[kind] or "") == longest]
    knowing = [kind for kind in nearest if is_known(key[longest:], kind)]
    return (knowing or nearest)[0]
