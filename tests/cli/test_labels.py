"""Classes on the command line."""

from sdvar_jax.cli.labels import default_labels, parse_labels
from sdvar_jax.labels import class_names, short_name

NAMES = ("apple", "pear", "tub, vat", "crane")


def test_words_are_numbers_names_ranges_and_lists():
    assert parse_labels(["3", "apple", "1-2", "pear, 0"], NAMES) == [3, 0, 1, 2, 1, 0]


def test_a_name_with_commas_may_be_given_whole():
    assert parse_labels(["tub, vat"], NAMES) == [2]


def test_the_handful_of_imagenet_is_what_it_says():
    chosen = [short_name(label, class_names()) for label in default_labels(class_names())]
    assert chosen == [
        "goldfish",
        "macaw",
        "golden retriever",
        "red fox",
        "balloon",
        "cheeseburger",
        "cup",
        "valley",
    ]


def test_other_models_show_their_whole_range():
    assert default_labels([f"class {i}" for i in range(36)]) == [0, 5, 10, 15, 20, 25, 30, 35]
    assert default_labels(NAMES) == [0, 1, 2, 3]
    assert default_labels(NAMES[:1]) == [0]
