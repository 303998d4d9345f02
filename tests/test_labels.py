"""Class labels by number, by name and in lists."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sdvar_jax.errors import SdvarError
from sdvar_jax.labels import (
    class_names,
    default_names,
    resolve_label,
    resolve_labels,
    short_name,
)

SHAPES = ("disc, circle", "square", "ring, circle", "T-shirt", "star")


def test_the_imagenet_classes_are_complete_and_in_the_standard_order():
    names = class_names()
    assert len(names) == 1000
    assert all(name and name == name.strip() for name in names)
    known = {
        0: "tench, Tinca tinca",
        1: "goldfish, Carassius auratus",
        151: "Chihuahua",
        207: "golden retriever",
        281: "tabby, tabby cat",
        517: "crane",
        724: "pirate, pirate ship",
        980: "volcano",
        999: "toilet tissue, toilet paper, bathroom tissue",
    }
    assert {number: names[number] for number in known} == known


def test_a_model_without_names_gets_imagenets_if_it_has_as_many_classes():
    assert default_names(1000) == class_names()
    assert default_names(2) == ("class 0", "class 1")


def test_short_name_is_the_first_synonym():
    assert short_name(999, class_names()) == "toilet tissue"


@pytest.mark.parametrize(
    "label", [207, "207", " 207 ", np.int32(207), "golden retriever", "Golden  RETRIEVER"]
)
def test_a_label_by_number_or_name(label):
    number = resolve_label(label, class_names())
    assert number == 207
    assert type(number) is int


@pytest.mark.parametrize(
    ("name", "number"),
    [("tench, tinca tinca", 0), ("Tinca tinca", 0), ("toilet paper", 999), ("tabby cat", 281)],
)
def test_whole_entries_and_all_synonyms_are_names(name, number):
    assert resolve_label(name, class_names()) == number


def test_whole_entry_goes_before_first_synonym_before_the_others():
    names = ("tub, vat", "bathtub, tub", "maillot", "maillot, tank suit")
    assert resolve_label("tub", names) == 0
    assert resolve_label("maillot", names) == 2


def test_every_imagenet_class_but_the_two_cranes_can_be_had_by_its_whole_name():
    names = class_names()
    for number, name in enumerate(names):
        if name == "crane":
            with pytest.raises(SdvarError, match=r"ambiguous: 134 .*517 .*give the number"):
                resolve_label(name, names)
        else:
            assert resolve_label(name, names) == number


def test_an_ambiguous_synonym_names_the_candidates():
    with pytest.raises(SdvarError, match=r"ambiguous: 0 \(disc\), 2 \(ring\); give the number"):
        resolve_label("circle", SHAPES)


def test_an_unknown_name_is_refused_with_close_matches():
    with pytest.raises(SdvarError, match=r"did you mean 207 \(golden retriever\)"):
        resolve_label("goldn retriver", class_names())


@pytest.mark.parametrize("name", ["", "zzzzzz", "9" * 5000])
def test_an_unknown_name_without_close_matches_still_says_what_to_give(name):
    with pytest.raises(SdvarError, match=r"unknown class name .*Give a number from 0 to 4"):
        resolve_label(name, SHAPES)


@pytest.mark.parametrize("label", [-1, 5, "-1", "+5", "1000", 10**30])
def test_a_number_out_of_range_is_refused_with_the_valid_range(label):
    with pytest.raises(SdvarError, match="out of range; give one from 0 to 4"):
        resolve_label(label, SHAPES)


def test_a_list_mixes_numbers_names_and_ranges():
    assert resolve_labels("207, golden retriever,3-5", class_names()) == (207, 207, 3, 4, 5)
    assert resolve_labels("4 - 4,t-shirt", SHAPES) == (4, 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty label"),
        ("1,,2", "empty label"),
        ("1,", "empty label"),
        ("4-2", "runs backwards; write 2-4"),
        ("0-99999999999", "out of range"),
        ("0,pentagon", "unknown class name 'pentagon'"),
    ],
)
def test_a_bad_list_is_refused(text, told):
    with pytest.raises(SdvarError, match=told):
        resolve_labels(text, SHAPES)


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=20))
def test_any_text_gives_valid_labels_or_one_clear_line(text):
    try:
        labels = resolve_labels(text, SHAPES)
    except SdvarError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert labels
        assert all(0 <= label < len(SHAPES) for label in labels)
