"""Models with random weights, filled on the device in seconds.

The weights are scaled so that activations stay near one and logits near a standard normal, so that
filtering and sampling meet realistic values. Zeros would run faster than real weights.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from sdvar_jax.checkpoint.assembly import abstract_model
from sdvar_jax.config import DTypePolicy, ScalePyramid, VARConfig, VQVAEConfig, preset
from sdvar_jax.models import VAR, VQVAE
from sdvar_jax.models.kernels import AUTO
from sdvar_jax.models.var.kernels.choice import running_with
from sdvar_jax.models.var.quantized import FLOAT, with_weights

_TINY_PYRAMID = ScalePyramid((1, 2, 3, 4, 5, 6))
_TINY = {"vocab_size": 256, "latent_channels": 8, "num_classes": 10, "pyramid": _TINY_PYRAMID}
TINY = VARConfig.of_depth(2, **_TINY)
TINY_DRAFT = VARConfig.of_depth(1, **_TINY)
_TINY_VQVAE = VQVAEConfig(
    pyramid=_TINY_PYRAMID,
    vocab_size=256,
    latent_channels=8,
    channels=32,
)
# Places of the pool at which parameters begin.
_STARTS = 1 << 16
SIZES = ("tiny", "d16", "d20", "d24", "d30", "d36")


def target_config(name: str) -> VARConfig:
    """The shapes of the size ``name``; ``SdvarError`` for an unknown one."""
    return TINY if name == "tiny" else preset(name)


def draft_name(draft: str, target: str) -> str:
    """The draft for a target: the one asked for; "tiny" goes with "tiny" alone."""
    return "tiny" if target == "tiny" else draft


def draft_config(name: str, target: VARConfig) -> VARConfig:
    """The shapes of a draft of size ``name`` that proposes scales to ``target``."""
    if name == "tiny":
        return TINY_DRAFT
    return dataclasses.replace(target_config(name), pyramid=target.pyramid)


def vqvae_config(target: VARConfig) -> VQVAEConfig:
    """The VQVAE that speaks the target's tokens."""
    if target.pyramid == _TINY_PYRAMID:
        return _TINY_VQVAE
    return VQVAEConfig(pyramid=target.pyramid)


def _mean_and_deviation(path: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Of the normal distribution that fills a parameter."""
    name = path.rsplit(".", 1)[-1]
    if name == "scale_mul":
        return math.log(4.0), 0.1
    if name in ("pos_embed", "pos_start", "scale_embed", "ada_gss"):
        return 0.0, 0.1
    if name in ("class_embed", "codebook"):
        return 0.0, shape[-1] ** -0.5
    if name == "scale":  # of a normalisation
        return 1.0, 0.1
    if len(shape) >= 2:  # a kernel, its last axis the outputs
        return 0.0, math.prod(shape[:-1]) ** -0.5
    return 0.0, 0.1


@functools.partial(jax.jit, static_argnames=("size",))
def _normal_pool(key: jax.Array, *, size: int) -> jax.Array:
    return jax.random.normal(key, (size,), jnp.float32)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"))
def _take(
    pool: jax.Array,
    start: int,
    mean: float,
    deviation: float,
    *,
    shape: tuple[int, ...],
    dtype: DTypeLike,
) -> jax.Array:
    numbers = jax.lax.dynamic_slice(pool, (start,), (math.prod(shape),)).reshape(shape)
    return (mean + deviation * numbers).astype(dtype)


def random_model(config: VARConfig | VQVAEConfig, dtypes: DTypePolicy, seed: int = 0) -> Any:
    """A ``VAR`` or ``VQVAE`` with random weights in the policy's dtype, made on the device.

    Every parameter is a stretch of one pool of normal numbers, so that few and small programs are
    compiled: a model of two billion parameters is ready in seconds.

    Args:
      config: its shapes; the class decides between the two.
      dtypes: of parameters and arithmetic.
      seed: of the weights.
    """
    graphdef, state = nnx.split(abstract_model(config, dtypes))
    leaves = nnx.to_flat_state(state)
    largest = max(math.prod(leaf.shape) for _, leaf in leaves)
    pool = _normal_pool(jax.random.key(seed), size=largest + _STARTS)
    for path, leaf in leaves:
        name = ".".join(map(str, path))
        mean, deviation = _mean_and_deviation(name, leaf.shape)
        start = zlib.crc32(name.encode()) % _STARTS
        leaf.set_value(_take(pool, start, mean, deviation, shape=leaf.shape, dtype=leaf.dtype))
    return nnx.merge(graphdef, state)


@dataclasses.dataclass(frozen=True)
class RandomModels:
    """Models that belong together.

    Attributes:
      target: the large model.
      vqvae: its VQVAE.
      draft: the small model, or None.
    """

    target: VAR
    vqvae: VQVAE
    draft: VAR | None

    @classmethod
    def make(
        cls,
        target: str,
        draft: str | None,
        dtypes: DTypePolicy,
        seed: int = 0,
        kernels: str = AUTO,
        weights: str = FLOAT,
    ) -> RandomModels:
        """Models of the sizes ``target`` and ``draft``, ready on the device."""

        def make_var(config: VARConfig, seed: int) -> VAR:
            return with_weights(weights, running_with(kernels, random_model(config, dtypes, seed)))

        config = target_config(target)
        models = cls(
            target=make_var(config, seed),
            vqvae=random_model(vqvae_config(config), dtypes, seed),
            draft=None if draft is None else make_var(draft_config(draft, config), seed + 1),
        )
        made = [m for m in (models.target, models.vqvae, models.draft) if m is not None]
        jax.block_until_ready([nnx.state(model) for model in made])
        return models
