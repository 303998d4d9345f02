"""The user's own pictures, one sub-folder a class."""

import numpy as np
import pytest
from PIL import Image

from sdvar_jax.data import ImageFolderDataset, ImageSource, load_dataset
from sdvar_jax.errors import SdvarError


@pytest.fixture
def root(tmp_path):
    """Classes "cat" and "dog", five grey pictures each; other files are to be ignored."""
    for label, name in enumerate(["cat", "dog"]):
        folder = tmp_path / "pictures" / name
        (folder / "deeper").mkdir(parents=True)
        for i in range(5):
            where = folder / "deeper" if i == 4 else folder
            grey = 100 * label + 10 * i
            Image.new("RGB", (20, 14), (grey, grey, grey)).save(where / f"{i}.png")
    (tmp_path / "pictures" / "dog" / "notes.txt").write_text("no picture")
    (tmp_path / "pictures" / ".hidden").mkdir()
    return tmp_path / "pictures"


def test_sub_folders_are_the_classes(root):
    dataset = ImageFolderDataset(root, 8, "all")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0] * 5 + [1] * 5
    assert isinstance(dataset, ImageSource)
    example = dataset[6]
    assert example["label"] == 1
    assert example["label"].dtype == np.int32
    np.testing.assert_array_equal(example["image"], np.full((8, 8, 3), 110, np.uint8))


def test_the_centre_of_a_wide_picture_is_kept(tmp_path):
    pixels = np.zeros((10, 30, 3), np.uint8)
    pixels[:, 10:20] = [0, 200, 0]
    (tmp_path / "x").mkdir()
    Image.fromarray(pixels).save(tmp_path / "x" / "wide.png")
    image = ImageFolderDataset(tmp_path, 10, "all")[0]["image"]
    np.testing.assert_array_equal(image, np.broadcast_to([0, 200, 0], (10, 10, 3)))


def test_transparent_pictures_lie_on_white_and_turned_ones_are_turned_back(tmp_path):
    (tmp_path / "x").mkdir()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "x" / "a.png")
    sideways = Image.new("RGB", (8, 8), "white")
    sideways.paste((0, 0, 0), (0, 0, 4, 8))  # black on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left becomes top
    sideways.save(tmp_path / "x" / "b.png", exif=exif)
    dataset = ImageFolderDataset(tmp_path, 8, "all")
    assert (dataset[0]["image"] == 255).all()
    assert (dataset[1]["image"][:4] == 0).all()
    assert (dataset[1]["image"][4:] == 255).all()


def test_splits_part_the_folder_by_path(root):
    parts = {
        split: set(ImageFolderDataset(root, 8, split, heldout_fraction=0.4).paths)
        for split in ("train", "heldout", "all")
    }
    assert parts["heldout"]
    assert parts["train"] | parts["heldout"] == parts["all"]
    assert not parts["train"] & parts["heldout"]


def test_in_memory_pictures_are_the_same(root):
    lazy, eager = (ImageFolderDataset(root, 8, "all", in_memory=m) for m in (False, True))
    rows = np.array([3, 8])
    np.testing.assert_array_equal(lazy.gather(rows)[0], eager.gather(rows)[0])
    np.testing.assert_array_equal(eager[8]["image"], lazy[8]["image"])


def test_load_dataset_takes_a_folder_with_a_size(root):
    assert isinstance(load_dataset(root, "all", size=8), ImageFolderDataset)
    with pytest.raises(SdvarError, match="at which size"):
        load_dataset(root)


def test_what_cannot_be_used_is_refused(root, tmp_path):
    with pytest.raises(SdvarError, match="no folder at"):
        ImageFolderDataset(tmp_path / "absent", 8)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SdvarError, match="no sub-folders"):
        ImageFolderDataset(tmp_path / "empty", 8)
    with pytest.raises(SdvarError, match="size must be positive"):
        ImageFolderDataset(root, 0)
    with pytest.raises(SdvarError, match="held-out fraction"):
        ImageFolderDataset(root, 8, heldout_fraction=-0.1)
    (root / "emu").mkdir()
    with pytest.raises(SdvarError, match=r"emu holds no picture"):
        ImageFolderDataset(root, 8)
    (root / "emu" / "broken.png").write_bytes(b"broken")
    with pytest.raises(SdvarError, match=r"cannot read the picture .*broken.png"):
        ImageFolderDataset(root, 8, "all", in_memory=True)
