import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def packing():
    """The module that writes icon archives (tests are no package, so it is loaded by its path)."""
    spec = importlib.util.spec_from_file_location("packing", Path(__file__).with_name("packing.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def encoded():
    """Ten 8-pixel pictures, number i of the grey level 10 i and the class i mod 3; 3 held out."""
    # Imported here, for this file is read before the tests have chosen JAX's settings.
    from sdvar_jax.data.container import EncodedImages, encode_image, join_payload

    pixels = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(10)]
    for image in pixels:
        image[0, 0] = 255  # a corner that flipping moves
    offsets, payload = join_payload(map(encode_image, pixels))
    return EncodedImages(
        size=8,
        class_names=("a", "b", "c"),
        labels=(np.arange(10) % 3).astype(np.int32),
        heldout=np.arange(10) >= 7,
        glyphs=tuple(f"glyph-{i}" for i in range(10)),
        names=tuple(f"name-{i}" for i in range(10)),
        offsets=offsets,
        payload=payload,
        credits=(),
    )
