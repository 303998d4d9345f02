"""The weights of the golden tests: made by formula, so that none are stored.

The rule and what it is for: ``tests/golden/README.md``.
"""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"
MANIFESTS = Path(__file__).parent / "manifests"


def golden_manifest(name: str, part: str | None = None) -> dict[str, tuple[int, ...]]:
    """PyTorch key -> shape of a golden model.

    Args:
      name: e.g. ``var_tiny_d2_l2`` or ``handoff``.
      part: ``handoff`` has three, "draft", "target" and "vae".
    """
    data = json.loads((GOLDEN / f"{name}.manifest.json").read_text())
    data = data if part is None else data[part]
    return {key: tuple(shape) for key, shape in data.items()}


def official_manifest(name: str) -> dict[str, tuple[int, ...]]:
    """PyTorch key -> shape of an official checkpoint, e.g. ``var_d16``."""
    data = json.loads((MANIFESTS / f"{name}.json").read_text())
    return {key: tuple(shape) for key, (shape, _) in data.items()}


def fill_one(key: str, shape: tuple[int, ...], manifest: Mapping[str, tuple[int, ...]]):
    """The value of one key; ``manifest`` gives the scales that the buffers depend on."""
    if key.endswith("zero_k_bias") or key.endswith("ema_vocab_hit_SV"):
        return np.zeros(shape, np.float32)
    if key == "lvl_1L":
        return _scales(manifest)[None]
    if key == "attn_bias_for_masking":
        scales = _scales(manifest)
        seen = scales[:, None] >= scales[None]
        return np.where(seen, np.float32(0), np.float32(-np.inf))[None, None]
    seed = zlib.crc32(key.encode()) & 0xFFFFFFFF
    n = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
    if key.endswith("scale_mul_1H11"):
        return (math.log(4.0) + 0.1 * n).astype(np.float32)
    if key.endswith(("pos_1LC", "pos_start")):
        return (0.1 * n).astype(np.float32)
    if n.ndim >= 2:
        return (n / np.float32(math.sqrt(math.prod(shape[1:])))).astype(np.float32)
    if "norm" in key and key.endswith("weight"):
        return (1 + 0.1 * n).astype(np.float32)
    return (0.1 * n).astype(np.float32)


def fill(manifest: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The whole state dict; float32, ``lvl_1L`` int64.

    Args:
      manifest: PyTorch key -> shape.
    """
    return {key: fill_one(key, tuple(shape), manifest) for key, shape in manifest.items()}


_PYRAMIDS = (
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    (1, 2, 3, 4),
)


def _scales(manifest: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    length = manifest["lvl_1L"][-1]
    (sides,) = (sides for sides in _PYRAMIDS if sum(side * side for side in sides) == length)
    return np.repeat(np.arange(len(sides), dtype=np.int64), [side * side for side in sides])
