"""``examples/edit.py``."""

from PIL import Image


def test_it_makes_three_edits(example, pair, folder, tmp_path):
    photo = folder / "class 3" / "0.png"
    code, out, err = example("edit", photo, "--model", pair, "--label", "7")
    assert (code, out, err) == (0, "wrote edit.png\n", "")
    with Image.open(tmp_path / "edit.png") as grid:
        assert grid.width > 4 * 128
