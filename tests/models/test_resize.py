"""The resizes equal PyTorch's to 1e-5."""

import jax.numpy as jnp
import numpy as np
import pytest
from golden_models import golden, nhwc

from sdvar_jax.config import PYRAMID_256, PYRAMID_512
from sdvar_jax.models.resize import area_matrix, bicubic_matrix, resize_area, resize_bicubic

CASES = [
    (name, side)
    for name, pyramid in (("256", PYRAMID_256), ("512", PYRAMID_512))
    for side in pyramid.sides
]


@pytest.mark.parametrize(("name", "side"), CASES)
def test_bicubic_equals_pytorch(name, side):
    arrays = golden("resize")
    wanted = nhwc(arrays[f"bicubic_out_{name}_{side}"])
    got = resize_bicubic(jnp.asarray(nhwc(arrays[f"bicubic_in_{name}_{side}"])), wanted.shape[1])
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "side"), CASES)
def test_area_equals_pytorch(name, side):
    arrays = golden("resize")
    wanted = nhwc(arrays[f"area_out_{name}_{side}"])
    got = resize_area(jnp.asarray(nhwc(arrays[f"area_in_{name}"])), side)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("matrix", [bicubic_matrix, area_matrix])
def test_a_constant_image_stays_constant(matrix):
    for source in range(1, 17):
        for target in range(1, 17):
            np.testing.assert_allclose(matrix(source, target).sum(axis=1), 1.0, atol=1e-6)
