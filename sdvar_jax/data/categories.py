"""The nine categories of Unicode emoji, under which every style's icons are sorted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)

# Older sets know eight broader ones; "People" holds smileys as well.
_OLDER = {
    "Food": "Food & Drink",
    "Nature": "Animals & Nature",
    "People": "People & Body",
    "Travel": "Travel & Places",
}
# Where an older set's name is also a name of today the two mean different things, so such a set
# is recognised by the names that only it has.
_ONLY_OLDER = frozenset(_OLDER)


def uses_older_scheme(categories: Iterable[str | None]) -> bool:
    """Whether a set sorts its icons by the older scheme, given all categories it uses."""
    return not _ONLY_OLDER.isdisjoint(category for category in categories if category)


def as_category(category: str | None) -> str | None:
    """The category of today for a set's own one; None if there is none or it is unknown."""
    if category is None:
        return None
    category = _OLDER.get(category, category)
    return category if category in CATEGORIES else None


def majority(votes: Iterable[str]) -> str | None:
    """The most frequent category, the first in alphabetical order among equals; None for none."""
    counts = Counter(votes)
    if not counts:
        return None
    return min(counts, key=lambda category: (-counts[category], category))
