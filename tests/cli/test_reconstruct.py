"""``sdvar reconstruct``."""

import json

import numpy as np
import pytest
from PIL import Image
from small_models import SMALL_PYRAMID


def test_pictures_come_back_with_what_was_lost(sdvar, pair, picture, tmp_path):
    done = sdvar(
        *("reconstruct", picture, "-m", pair, "--stats", "s.json", "--tokens", "t.npz"),
        *("--strip", "strip.png", "--singles", "made"),
    )
    assert (done.code, done.err) == (0, "")
    (ratio,) = json.loads((tmp_path / "s.json").read_text())["psnr_db"].values()
    assert f"photo.png: {ratio:.1f} dB" in done.out
    with np.load(tmp_path / "t.npz") as tokens:
        assert tokens["scale_02"].shape == (1, SMALL_PYRAMID.lengths[2])
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["0000-photo.png"]
    for name in ("reconstruction.png", "strip.png"):
        with Image.open(tmp_path / name) as written:
            written.verify()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing.png"], "no image file missing.png"),
        (["{picture}", "--out", "no/dir.png"], "does not exist"),
        (["{picture}", "--tokens", "a", "--stats", "a"], "name the same file"),
    ],
)
@pytest.mark.usefixtures("nothing_loads_or_compiles")
def test_bad_input(sdvar, pair, picture, tmp_path, words, message):
    words = [word.format(picture=picture) for word in words]
    done = sdvar("reconstruct", "-m", pair, *words)
    assert (done.code, message in done.error) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_picture(sdvar, pair, tmp_path):
    (tmp_path / "notes.png").write_text("hello")
    done = sdvar("reconstruct", "notes.png", "-m", pair)
    assert (done.code, "not an image" in done.error) == (2, True)
