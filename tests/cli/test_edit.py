"""``sdvar edit``."""

import json

import numpy as np
import pytest
from PIL import Image
from small_models import SMALL_CLASSES, SMALL_SIDE

from sdvar_jax.imaging import load_image

TWO = ("--count", 2, "--quiet", "--singles", "made")


def variants(tmp_path):
    return [load_image(path, SMALL_SIDE) for path in sorted((tmp_path / "made").iterdir())]


def test_a_box_is_filled_and_the_rest_stays(sdvar, pair, picture, tmp_path):
    done = sdvar(
        *("edit", picture, "--box", "0,0,50%,100%", "-m", pair, "--tokens", "t.npz"),
        *("--stats", "s.json", *TWO),
    )
    assert (done.code, done.err) == (0, "")
    original = load_image(picture, SMALL_SIDE)
    made = variants(tmp_path)
    for variant in made:
        np.testing.assert_allclose(
            variant[:, SMALL_SIDE // 2 :], original[:, SMALL_SIDE // 2 :], atol=1.01 / 255
        )
    assert (made[0] != made[1]).any()
    with np.load(tmp_path / "t.npz") as tokens:
        np.testing.assert_array_equal(tokens["labels"], [SMALL_CLASSES] * 2)
    stats = json.loads((tmp_path / "s.json").read_text())
    assert 0 < stats["edit"]["kept_tokens"] < stats["edit"]["all_tokens"] == 14


def test_a_mask_and_a_class(sdvar, pair, picture, tmp_path):
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 16))
    mask.save(tmp_path / "mask.png")
    done = sdvar(
        "edit", picture, "--mask", "mask.png", "-l", "owl", "-m", pair, "--tokens", "t.npz", *TWO
    )
    assert (done.code, done.err) == (0, "")
    with np.load(tmp_path / "t.npz") as tokens:
        np.testing.assert_array_equal(tokens["labels"], [9, 9])
    assert sorted(path.name for path in (tmp_path / "made").iterdir())[0] == "0000-9-owl-1.png"


def test_a_picture_is_continued_beside_it(sdvar, pair, picture, tmp_path):
    done = sdvar("edit", picture, "--shift", "0.5,0", "-m", pair, *TWO)
    assert (done.code, done.err) == (0, "")
    original = load_image(picture, SMALL_SIDE)
    for variant in variants(tmp_path):
        np.testing.assert_allclose(
            variant[:, SMALL_SIDE // 2 :], original[:, : SMALL_SIDE // 2], atol=1.01 / 255
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "one of --box, --mask and --zoom/--shift; got none"),
        (["--box", "0,0,4,4", "--zoom", "2"], "got --box and --zoom/--shift"),
        (["--box", "0,0,4"], "four numbers"),
        (["--box", "0,0,400,4"], "reaches outside"),
        (["--box", "0,0,100%,100%"], "nothing of the image would be kept"),
        (["--box", "0,0,4,4", "-l", "unicorn"], "unknown class name"),
        (["--box", "0,0,4,4", "--tolerance", "1"], "tolerance must be"),
        (["--mask", "missing.png"], "no image file missing.png"),
        (["--zoom", "0.5"], "zoom must lie in 1..8"),
        (["--shift", "right"], "--shift is two shares"),
        (["--shift", "0.5,0", "-d", "handoff"], "a handoff needs --entry"),
        (["--box", "0,0,4,4", "--kernels", "fused"], "the fused kernels need an NVIDIA GPU"),
        (["--box", "0,0,4,4", "--out", "no/dir.png"], "does not exist"),
    ],
)
@pytest.mark.usefixtures("nothing_loads_or_compiles")
def test_bad_input(sdvar, pair, picture, tmp_path, words, message):
    done = sdvar("edit", picture, "-m", pair, *words)
    assert (done.code, message in done.error) == (2, True)
    assert list(tmp_path.iterdir()) == []
