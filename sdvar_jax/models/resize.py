"""The two resizes of the residual quantizer as static matrices.

Both are separable linear maps of a square image's side, so one [out, in] matrix a pair of sides
serves; it is computed in NumPy when a function is traced and becomes a constant of the program.
"""

from __future__ import annotations

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np

_CUBIC_A = -0.75  # PyTorch's bicubic coefficient; jax.image's "cubic" uses -0.5.


def _cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.75 at ``distance`` >= 0."""
    a = _CUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


@cache
def bicubic_matrix(source: int, target: int) -> np.ndarray:
    """PyTorch's bicubic interpolation (half-pixel centres, clamped borders, no antialiasing).

    Args:
      source: side before.
      target: side after.

    Returns:
      float32 [target, source]; rows sum to 1.
    """
    matrix = np.zeros((target, source), np.float64)
    centers = (np.arange(target) + 0.5) * source / target - 0.5
    floor = np.floor(centers).astype(int)
    for tap in range(-1, 3):
        weight = _cubic_kernel(np.abs(centers - (floor + tap)))
        column = np.clip(floor + tap, 0, source - 1)
        np.add.at(matrix, (np.arange(target), column), weight)
    return matrix.astype(np.float32)


@cache
def area_matrix(source: int, target: int) -> np.ndarray:
    """Adaptive average pooling: bins [floor(i*n/m), ceil((i+1)*n/m)), which may overlap.

    Args:
      source: side before, n.
      target: side after, m.

    Returns:
      float32 [target, source]; rows sum to 1.
    """
    matrix = np.zeros((target, source), np.float64)
    for i in range(target):
        start, stop = i * source // target, -(-(i + 1) * source // target)
        matrix[i, start:stop] = 1.0 / (stop - start)
    return matrix.astype(np.float32)


def _resize(images: jax.Array, matrix: np.ndarray) -> jax.Array:
    weights = jnp.asarray(matrix, images.dtype)
    return jnp.einsum(
        "oh,pw,bhwc->bopc", weights, weights, images, precision=jax.lax.Precision.HIGHEST
    )


def resize_bicubic(images: jax.Array, side: int) -> jax.Array:
    """Resizes [batch, side', side', channels] to [batch, side, side, channels], bicubically."""
    chex.assert_rank(images, 4)
    if images.shape[1] == side:
        return images
    return _resize(images, bicubic_matrix(images.shape[1], side))


def resize_area(images: jax.Array, side: int) -> jax.Array:
    """Resizes [batch, side', side', channels] to [batch, side, side, channels] by area averages."""
    chex.assert_rank(images, 4)
    if images.shape[1] == side:
        return images
    return _resize(images, area_matrix(images.shape[1], side))
