"""A glyph is what an emoji is, apart from who drew it and from its tone and gender."""

import pytest

from sdvar_jax.data.glyph import DisjointSets, base_code_points, base_name, without_tone


@pytest.mark.parametrize(
    ("sequence", "base"),
    [
        ("1f600", "1f600"),
        ("2764-fe0f", "2764"),  # presentation
        ("1f44b-1f3fd", "1f44b"),  # tone
        ("1f3c3-1f3ff-200d-2640-fe0f", "1f3c3"),  # tone and gender sign
        ("1f468-1f3fb-200d-1f680", "1f9d1-1f680"),  # man astronaut
        ("1f469-200d-1f680", "1f9d1-1f680"),  # woman astronaut
        ("1f478", "1fac5"),  # princess
        ("1f468-200d-1f469-200d-1f467", "1f46a"),  # family
        ("1f469-1f3fb-200d-2764-fe0f-200d-1f468-1f3ff", "1f491"),  # couple with heart
        ("1faf1-1f3fb-200d-1faf2-1f3ff", "1f91d"),  # handshake of two tones
        ("2640", "2640"),  # the sign itself
        ("1f3fb", "1f3fb"),  # the swatch itself
        ("0023-fe0f-20e3", "23-20e3"),  # keycap
        ("1F1EB-1F1F7", "1f1eb-1f1f7"),  # flag
    ],
)
def test_code_points_lose_their_modifiers(sequence, base):
    assert base_code_points(sequence) == base


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("waving-hand", "waving-hand"),
        ("waving-hand-medium-dark-skin-tone", "waving-hand"),
        ("handshake-light-skin-tone-dark-skin-tone", "handshake"),
        ("men-holding-hands-dark-skin-tone-light-skin-tone", "holding-hands"),
        ("breast-feeding-tone3", "breast-feeding"),
        ("man-dark-skin-tone-blond-hair", "blond-hair"),
        ("woman-firefighter", "firefighter"),
        ("person-zombie", "zombie"),
        ("woman-and-man-holding-hands", "holding-hands"),
        ("man", "person"),
        ("flag-for-chad", "flag-chad"),
        ("flag-for-flag-chad", "flag-chad"),
        ("womans-hat", "womans-hat"),
        ("dark-skin-tone", "dark-skin-tone"),
    ],
)
def test_names_lose_tone_and_gender(name, base):
    assert base_name(name) == base


def test_a_bare_tone_counts_only_after_a_name_of_the_set():
    known = {"ear", "crescent"}
    assert without_tone("ear-medium-light", known) == "ear"
    assert without_tone("moon-dark", known) == "moon-dark"


def test_sets_join_through_others():
    sets = DisjointSets()
    for a, b in [("a", "b"), ("c", "d"), ("b", "c")]:
        sets.union(a, b)
    assert sets.find("a") == sets.find("d")
    assert sets.find("a") != sets.find("e")
