"""The decoder's convolutions on Hopper's tensor cores, and which of them run there."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdvar_jax.models.vqvae.kernels.convolution import (
    Tiles,
    convolution,
    multiprocessors,
    tiles_for,
)

needs_interpreter = pytest.mark.skipif(
    jax.__version_info__ < (0, 11), reason="JAX 0.10 does not interpret Mosaic's kernels"
)
needs_hopper = pytest.mark.skipif(
    "multiprocessors() == 0", reason="needs an H100 or H200 and jax 0.11"
)


def arrays(shape, channels, taps):
    """Maps, filters, biases and something to add, bfloat16."""
    columns = channels * (4 if taps == 2 else 1)
    keys = jax.random.split(jax.random.key(0), 4)
    filters = jax.random.normal(keys[1], (taps, taps, shape[-1], columns))
    return (
        jax.random.normal(keys[0], shape, jnp.bfloat16),
        (filters * (taps**2 * shape[-1]) ** -0.5).astype(jnp.bfloat16),
        jax.random.normal(keys[2], (columns,), jnp.bfloat16),
        jax.random.normal(keys[3], (*shape[:3], channels), jnp.bfloat16),
    )


def float32(*values):
    return tuple(value.astype(jnp.float32) for value in values)


def plain(x, filters, bias, padding):
    x, filters, bias = float32(x, filters, bias)
    dimensions = ("NHWC", "HWIO", "NHWC")
    sums = jax.lax.conv_general_dilated(
        x, filters, (1, 1), padding, dimension_numbers=dimensions, precision="highest"
    )
    return sums + bias[None, None, None]


def plain_doubling(x, filters, bias):
    """Output cell (2y + a, 2x + b) sees cells y + a - 1 and y + a, likewise of columns."""
    batch, height, width, _ = x.shape
    y = plain(x, filters, bias, ((1, 1), (1, 1)))
    out = np.zeros((batch, 2 * height, 2 * width, bias.size // 4), np.float32)
    for a in range(2):
        for b in range(2):
            of_parity = np.split(y, 4, axis=-1)[2 * a + b]
            out[:, a::2, b::2] = of_parity[:, a : a + height, b : b + width]
    return out


def near(got, wanted):
    """Within one rounding to bfloat16."""
    np.testing.assert_allclose(*float32(got), wanted, rtol=2**-8, atol=2**-8)


@needs_interpreter
@pytest.mark.parametrize("with_added", [False, True], ids=["alone", "added"])
@pytest.mark.parametrize("programs", [1, 3])
def test_it_is_the_convolution_with_zeros_around_the_map(programs, with_added):
    x, filters, bias, added = arrays((2, 4, 64, 64), 32, 3)
    got = convolution(
        *(x, filters, bias, added if with_added else None),
        tiles=Tiles(128, 32),
        programs=programs,
        interpret=True,
    )
    near(got, plain(x, filters, bias, "SAME") + (added.astype(jnp.float32) if with_added else 0))


@needs_interpreter
@pytest.mark.parametrize("tiles", [Tiles(128, 16), Tiles(256, 32)], ids=str)
def test_a_doubling_one_writes_each_parity_of_the_cells(tiles):
    x, filters, bias, _ = arrays((1, 4, 128, 64), 32, 2)
    got = convolution(x, filters, bias, tiles=tiles, programs=5, interpret=True)
    near(got, plain_doubling(x, filters, bias))


@pytest.mark.parametrize(
    ("shape", "channels", "doubling", "tiles"),
    [
        ((1, 256, 256, 160), 160, False, Tiles(256, 160)),
        ((1, 128, 128, 320), 160, False, Tiles(128, 160)),
        ((1, 128, 128, 160), 160, True, Tiles(256, 160)),
        ((1, 64, 64, 320), 320, True, Tiles(256, 160)),
        ((32, 16, 16, 640), 640, False, Tiles(256, 160)),
    ],
    ids=str,
)
def test_large_maps_and_doubling_ones_are_for_these_kernels(shape, channels, doubling, tiles):
    assert tiles_for(shape, channels, doubling=doubling, multiprocessors=132) == tiles
    assert tiles.stages >= 4


@pytest.mark.parametrize(
    ("shape", "channels", "doubling"),
    [
        ((1, 64, 64, 320), 320, False),
        ((1, 256, 256, 160), 3, False),
        ((1, 256, 256, 48), 160, False),
        ((1, 251, 256, 160), 160, False),
        ((1, 256, 200, 160), 160, False),
        ((1, 32, 32, 320), 320, True),
        ((99, 8, 8, 64), 64, True),
    ],
    ids=[
        "few tiles",
        "few channels",
        "odd depth",
        "odd height",
        "odd width",
        "few to double",
        "narrow",
    ],
)
def test_others_are_left_to_the_library(shape, channels, doubling):
    assert tiles_for(shape, channels, doubling=doubling, multiprocessors=132) is None


def test_without_a_fitting_device_all_are():
    assert tiles_for((1, 256, 256, 160), 160, doubling=False, multiprocessors=0) is None


@pytest.mark.parametrize(
    ("capability", "version", "wanted"),
    [("9.0", (0, 11, 2), 132), ("9.0", (0, 10, 2), 0), ("10.0", (0, 11, 2), 0)],
    ids=["Hopper", "older JAX", "Blackwell"],
)
def test_devices_that_fit(monkeypatch, capability, version, wanted):
    gpu = SimpleNamespace(platform="gpu", compute_capability=capability, core_count=132)
    monkeypatch.setattr(jax, "devices", lambda: [gpu])
    monkeypatch.setattr(jax, "__version_info__", version)
    assert multiprocessors.__wrapped__() == wanted


@pytest.mark.accelerator
@needs_hopper
@pytest.mark.parametrize(
    ("shape", "channels", "taps"),
    [
        ((1, 256, 256, 160), 160, 3),
        ((2, 128, 128, 320), 160, 3),
        ((40, 16, 16, 640), 640, 3),
        ((1, 128, 128, 160), 160, 2),
        ((4, 32, 32, 320), 320, 2),
        ((9, 16, 16, 640), 640, 2),
    ],
    ids=str,
)
def test_on_a_gpu_it_is_the_librarys_convolution(shape, channels, taps):
    x, filters, bias, added = arrays(shape, channels, taps)
    programs = multiprocessors()
    tiles = tiles_for(shape, channels, doubling=taps == 2, multiprocessors=programs)
    assert tiles is not None
    got = convolution(x, filters, bias, tiles=tiles, programs=programs)
    near(got, plain(x, filters, bias, "SAME") if taps == 3 else plain_doubling(x, filters, bias))
    if taps == 3:
        got = convolution(x, filters, bias, added, tiles=tiles, programs=programs)
        near(got, plain(x, filters, bias, "SAME") + added.astype(jnp.float32))
