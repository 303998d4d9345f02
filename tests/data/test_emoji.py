"""Preparing the emoji set: classes, held-out glyphs, and what is refused."""

import numpy as np
import pytest

from sdvar_jax.data import ImageDataset, npm, prepare_emoji
from sdvar_jax.data.container import read_images
from sdvar_jax.data.split import is_heldout
from sdvar_jax.errors import SdvarError

PEOPLE, ANIMALS = "People & Body", "Animals & Nature"


@pytest.fixture
def archives(tmp_path, packing):
    """Two styles: a modern one with code points and tones, an older one with names alone."""
    disc, square = packing.DISC.format, packing.SQUARE.format
    modern = packing.pack(
        tmp_path / "modern.tgz",
        "modern",
        {
            "waving-hand": disc("#fc0"),
            "waving-hand-dark-skin-tone": disc("#630"),
            "waving-hand-tone1": disc("#fed"),  # hidden: no category, no code points
            "bear": square("#840"),
            "bear-copy": square("#840"),
            "grinning-face": disc("#ff0"),
            "dark-skin-tone": square("#630"),
            "nothing": square("#fff"),
        },
        {
            PEOPLE: ["waving-hand", "waving-hand-dark-skin-tone"],
            ANIMALS: ["bear", "bear-copy", "nothing"],
            "Smileys & Emotion": ["grinning-face"],
            "Component": ["dark-skin-tone"],
        },
        chars={"1f44b": "waving-hand", "1f44b-1f3ff": "waving-hand-dark-skin-tone"},
        aliases={"bear-face": "bear"},
    )
    older = packing.pack(
        tmp_path / "older.tgz",
        "older",
        {
            "waving-hand": square("#fc0"),
            "bear-face": disc("#840"),
            "grinning-face": square("#ff0"),
            "cucumber": square("#0a0"),
        },
        {
            "People": ["waving-hand", "grinning-face"],
            "Nature": ["bear-face"],
            "Food": ["cucumber"],
        },
    )
    return [modern, older]


def prepare(archives, output, **options):
    return prepare_emoji(archives, output, 16, show_progress=False, **options)


def class_of(images, name):
    return images.class_names[images.labels[images.names.index(name)]]


def test_a_class_is_a_style_and_one_of_nine_categories(archives, tmp_path):
    report = prepare(archives, tmp_path / "set.bin")
    images = read_images(tmp_path / "set.bin")
    assert len(images.class_names) == 2 * 9
    assert class_of(images, "modern:bear") == f"modern/{ANIMALS}"
    assert class_of(images, "older:cucumber") == "older/Food & Drink"
    assert (
        report.num_train + report.num_heldout == len(images) == 12 - 3
    )  # see below for what is left out
    assert report.file_bytes == (tmp_path / "set.bin").stat().st_size


def test_an_older_set_takes_the_finer_category_that_others_give_the_glyph(archives, tmp_path):
    prepare(archives, tmp_path / "set.bin")
    images = read_images(tmp_path / "set.bin")
    assert class_of(images, "older:grinning-face") == "older/Smileys & Emotion"
    assert class_of(images, "older:waving-hand") == f"older/{PEOPLE}"


def test_a_variant_without_a_category_takes_its_glyphs(archives, tmp_path):
    report = prepare(archives, tmp_path / "set.bin")
    assert class_of(read_images(tmp_path / "set.bin"), "modern:waving-hand-tone1") == (
        f"modern/{PEOPLE}"
    )
    assert report.recovered == 1


def test_what_has_no_category_or_shows_nothing_or_shows_it_twice_is_left_out(archives, tmp_path):
    report = prepare(archives, tmp_path / "set.bin")
    assert report.dropped == {"blank": 1, "duplicate": 1, "no category": 1}
    names = read_images(tmp_path / "set.bin").names
    assert "modern:bear" in names
    assert not {"modern:nothing", "modern:bear-copy", "modern:dark-skin-tone"} & set(names)


def test_variants_and_styles_of_a_glyph_are_one_glyph(archives, tmp_path):
    prepare(archives, tmp_path / "set.bin")
    images = read_images(tmp_path / "set.bin")
    glyph = dict(zip(images.names, images.glyphs, strict=True))
    hands = [name for name in images.names if "waving-hand" in name]
    assert len(hands) == 4
    assert {glyph[name] for name in hands} == {"1f44b"}
    assert glyph["modern:bear"] == glyph["older:bear-face"]  # by the alias
    assert glyph["older:cucumber"] not in {glyph["modern:bear"], "1f44b"}


def test_a_glyph_is_held_out_whole(archives, tmp_path):
    report = prepare(archives, tmp_path / "set.bin", heldout_fraction=0.5)
    images = read_images(tmp_path / "set.bin")
    train, heldout = ImageDataset(images, "train"), ImageDataset(images, "heldout")
    assert 0 < report.num_heldout < len(images)
    assert len(train) == report.num_train
    assert not set(train.glyphs) & set(heldout.glyphs)


def test_equal_pixels_under_unrelated_names_are_not_split(tmp_path, packing):
    drawing = packing.DISC.format("#f00")
    archives = [
        packing.pack(tmp_path / f"{style}.tgz", style, {name: drawing}, {"Flags": [name]})
        for style, name in [("a", "flag-norway"), ("b", "flag-bouvet-island")]
    ]
    prepare(archives, tmp_path / "set.bin")
    images = read_images(tmp_path / "set.bin")
    assert len(images) == 2
    assert len(set(images.glyphs)) == 1


def test_the_held_out_share_is_about_the_fraction_and_grows_with_it():
    glyphs = [f"{i:x}" for i in range(4000)]
    small = {g for g in glyphs if is_heldout(g, 0.05)}
    large = {g for g in glyphs if is_heldout(g, 0.2)}
    assert 0.04 < len(small) / len(glyphs) < 0.06
    assert small < large
    assert not any(is_heldout(g, 0.0) for g in glyphs)


def test_equal_archives_make_equal_bytes_in_any_order_and_on_any_number_of_threads(
    archives, tmp_path
):
    prepare(archives, tmp_path / "a.bin", workers=1)
    prepare(archives[::-1], tmp_path / "b.bin", workers=3)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


def test_icons_are_drawn_on_white_and_fitted_to_the_square(tmp_path, packing):
    body = '<path fill="#00f" d="M10 0h16v8h-16z"/>'
    wide = {"body": body, "left": 10, "width": 16, "height": 8}
    archive = packing.pack(
        tmp_path / "a.tgz",
        "a",
        {},
        {"Symbols": ["wide"]},
        members={"icons": {"prefix": "a", "icons": {"wide": wide}}},
    )
    prepare([archive], tmp_path / "set.bin", heldout_fraction=0.0)
    image = ImageDataset(read_images(tmp_path / "set.bin"))[0]["image"]
    assert image.shape == (16, 16, 3)
    np.testing.assert_array_equal(image[:4], 255)
    np.testing.assert_array_equal(image[4:12], np.broadcast_to([0, 0, 255], (8, 16, 3)))
    np.testing.assert_array_equal(image[12:], 255)


def test_the_sources_are_credited_in_the_file(archives, tmp_path):
    prepare(archives, tmp_path / "set.bin")
    credits = read_images(tmp_path / "set.bin").credits
    assert [credit.style for credit in credits] == ["modern", "older"]
    assert (credits[0].author, credits[0].licence, credits[0].version) == (
        "Ann Author",
        "MIT",
        "1.2.3",
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"not an archive", "cannot read the archive"),
        (lambda data: data[: len(data) // 2], "cannot read the archive"),
        (lambda data: b"", "cannot read the archive"),
    ],
)
def test_a_damaged_archive_is_one_clear_line_and_nothing_is_written(
    archives, tmp_path, damage, message
):
    archives[0].write_bytes(damage(archives[0].read_bytes()))
    with pytest.raises(SdvarError, match=message) as caught:
        prepare(archives, tmp_path / "set.bin")
    assert "modern.tgz" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*set*"))


def test_an_archive_of_something_else_is_refused(tmp_path, packing):
    archive = packing.pack(tmp_path / "a.tgz", "a", {}, {}, members={"icons": ["no", "icons"]})
    with pytest.raises(SdvarError, match="not a usable Iconify package"):
        prepare([archive], tmp_path / "set.bin")


def test_an_icon_that_cannot_be_drawn_is_named(tmp_path, packing):
    archive = packing.pack(tmp_path / "a.tgz", "a", {"torn": "<path"}, {"Symbols": ["torn"]})
    with pytest.raises(SdvarError, match="icon torn of a cannot be drawn"):
        prepare([archive], tmp_path / "set.bin")
    assert not list(tmp_path.glob("*set*"))


def test_icons_without_any_category_are_refused(tmp_path, packing):
    archive = packing.pack(tmp_path / "a.tgz", "a", {"x": packing.DISC.format("#f00")}, {})
    with pytest.raises(SdvarError, match="no known category"):
        prepare([archive], tmp_path / "set.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"archives": []}, "no archives given"),
        ({"size": 4}, "picture size"),
        ({"heldout_fraction": 1.0}, "held-out fraction"),
        ({"workers": 0}, "worker"),
        ({"double": True}, "two archives hold the icon set modern"),
        ({"missing": True}, "no archive at"),
        ({"output": "absent/set.bin"}, "does not exist"),
    ],
)
def test_bad_arguments_are_refused(archives, tmp_path, change, message):
    given = change.get("archives", archives)
    if change.get("double"):
        given = [*archives, archives[0]]
    if change.get("missing"):
        given = [tmp_path / "absent.tgz"]
    with pytest.raises(SdvarError, match=message):
        prepare_emoji(
            given,
            tmp_path / change.get("output", "set.bin"),
            change.get("size", 16),
            heldout_fraction=change.get("heldout_fraction", 0.05),
            workers=change.get("workers"),
            show_progress=False,
        )


def fake_npm(directory, script):
    directory.mkdir()
    program = directory / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def test_without_archives_the_packages_are_fetched(archives, tmp_path, monkeypatch):
    # "npm pack NAME --pack-destination DIRECTORY --silent"
    npm_dir = tmp_path / "bin"
    fake_npm(npm_dir, f'cp {tmp_path}/"$2".tgz "$4"/fetched-"$2".tgz')
    monkeypatch.setenv("PATH", f"{npm_dir}:/usr/bin:/bin")
    monkeypatch.setattr(npm.fetch_packages, "__defaults__", (("modern", "older"),))
    prepare(archives, tmp_path / "given.bin")
    prepare(None, tmp_path / "fetched.bin")
    assert (tmp_path / "given.bin").read_bytes() == (tmp_path / "fetched.bin").read_bytes()


def test_a_failing_fetch_tells_what_npm_said(tmp_path, monkeypatch):
    npm_dir = tmp_path / "bin"
    fake_npm(npm_dir, "echo no such host >&2; exit 1")
    monkeypatch.setenv("PATH", f"{npm_dir}:/usr/bin:/bin")
    with pytest.raises(SdvarError, match=r"could not fetch .*no such host"):
        prepare(None, tmp_path / "set.bin")


def test_a_missing_npm_is_told_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SdvarError, match="npm was not found"):
        prepare(None, tmp_path / "set.bin")
