"""What one emoji is, whoever drew it: names and code points reduced to a glyph.

A held-out split by picture leaks: the same emoji is drawn once per style, in up to 26 skin tones,
and as person, man and woman. Two icons are the same *glyph* when, after the modifiers of tone and
gender are dropped, they share a code point sequence or a name, directly or through others.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

# Code points that modify an emoji without making it another one (Unicode TR 51): presentation
# selectors, skin tones, and the joined female and male signs.
_PRESENTATION = frozenset({"fe0e", "fe0f"})
_TONES = frozenset({"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"})
_GENDER_SIGNS = frozenset({"2640", "2642"})
_JOINER = "200d"

# Emoji that exist in several genders under code points of their own -> the one that stands for all.
_GENDERED = {
    "1f468": "1f9d1",  # man -> person
    "1f469": "1f9d1",  # woman
    "1f466": "1f9d2",  # boy -> child
    "1f467": "1f9d2",  # girl
    "1f474": "1f9d3",  # old man -> older person
    "1f475": "1f9d3",  # old woman
    "1f934": "1fac5",  # prince -> person with crown
    "1f478": "1fac5",  # princess
    "1f930": "1fac4",  # pregnant woman -> pregnant person
    "1fac3": "1fac4",  # pregnant man
    "1f57a": "1f483",  # man dancing -> woman dancing
    "1f46c": "1f46b",  # men holding hands -> people holding hands
    "1f46d": "1f46b",  # women holding hands
}

# Sequences that spell an emoji which also has a code point of its own, modifiers already dropped.
_SEQUENCES = {
    ("1f9d1", "1f91d", "1f9d1"): ("1f46b",),  # people holding hands
    ("1f9d1", "2764", "1f48b", "1f9d1"): ("1f48f",),  # kiss
    ("1f9d1", "2764", "1f9d1"): ("1f491",),  # couple with heart
    ("1f9d1", "1f430", "1f9d1"): ("1f46f",),  # people with bunny ears
    ("1f9d1", "1faef", "1f9d1"): ("1f93c",),  # people wrestling
    ("1faf1", "1faf2"): ("1f91d",),  # handshake of two tones
    ("1f9d1", "1f384"): ("1f385",),  # mx claus
    ("1f936",): ("1f385",),  # mrs claus
}
_FAMILY = ("1f46a",)
_FAMILY_MEMBERS = frozenset({"1f9d1", "1f9d2"})

_TONE = r"(?:(?:medium-)?(?:light|dark)|medium)"
_TONE_WORDS = re.compile(rf"(?:(?:^|-){_TONE})+-skin-tones?(?=-|$)|-tone[1-5](?=-|$)")
# One set writes tones without "skin-tone"; then only what stands after a known name is a tone.
_BARE_TONE_SUFFIX = re.compile(rf"(?:-{_TONE}){{1,2}}$")
_GENDER_WORDS = frozenset(
    {"man", "men", "woman", "women", "person", "people", "male", "female", "adult"}
)
_LINKING_WORDS = frozenset({"and", "or"})


def base_code_points(sequence: str) -> str:
    """Code points of the glyph that ``sequence`` is a variant of.

    Args:
      sequence: hexadecimal code points joined by ``-``, such as ``"1f469-1f3fd-200d-1f680"``.

    Returns:
      The sequence without joiners, presentation selectors, skin tones and gender, such as
      ``"1f9d1-1f680"``. All families come out as one glyph.
    """
    codes = [code.lower().lstrip("0") or "0" for code in sequence.split("-")]
    if len(codes) > 1:
        dropped = _PRESENTATION | _TONES | {_JOINER}
        kept = [code for code in codes if code not in dropped]
        # A sign alone is an emoji; after another emoji it is a gender.
        kept = kept[:1] + [code for code in kept[1:] if code not in _GENDER_SIGNS]
    else:
        kept = codes
    base = tuple(_GENDERED.get(code, code) for code in kept)
    if len(base) > 1 and _FAMILY_MEMBERS.issuperset(base):
        base = _FAMILY
    return "-".join(_SEQUENCES.get(base, base))


def without_tone(name: str, known: frozenset[str] | set[str] = frozenset()) -> str:
    """The name of an icon without its skin tone.

    Args:
      name: words joined by ``-``, such as ``"waving-hand-medium-dark-skin-tone"``.
      known: names of the same icon set. A tone written without "skin-tone" counts as one only
        after such a name: ``waving-hand-dark`` yes, ``new-moon-dark`` only if there is a
        ``new-moon``.
    """
    stripped = _TONE_WORDS.sub("", name).strip("-")
    if stripped not in ("", name):
        return stripped
    stripped = _BARE_TONE_SUFFIX.sub("", name)
    return stripped if stripped in known else name


def base_name(name: str, known: frozenset[str] | set[str] = frozenset()) -> str:
    """The name of the glyph that the icon ``name`` is a variant of: no tone, no gender.

    Args:
      name: words joined by ``-``, such as ``"woman-astronaut-dark-skin-tone"``.
      known: names of the same icon set, see ``without_tone``.
    """
    words = without_tone(name, known).split("-")
    if words[0] == "flag" and len(words) > 1:  # flag-for-x, flag-for-flag-x, flag-x
        country = [w for i, w in enumerate(words) if not (w == "flag" or (w == "for" and i < 3))]
        return "-".join(["flag", *country])
    kept = [word for word in words if word not in _GENDER_WORDS]
    if not kept:
        return "person"
    if len(kept) < len(words):
        kept = [word for word in kept if word not in _LINKING_WORDS] or kept
    return "-".join(kept)


class DisjointSets:
    """Union-find over hashable keys; a key is known from its first use."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, key: Hashable) -> Hashable:
        """The key that stands for the set of ``key``."""
        parent = self._parent.setdefault(key, key)
        while parent != key:
            grandparent = self._parent[parent]
            self._parent[key] = grandparent
            key, parent = parent, grandparent
        return key

    def union(self, a: Hashable, b: Hashable) -> None:
        """Joins the sets of ``a`` and ``b``."""
        self._parent[self.find(a)] = self.find(b)
