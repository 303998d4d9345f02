"""AdamW in optax, without its learning rate, which the step knows."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import optax

from sdvar_jax.training.config import OptimizerConfig


def decays(path: str, array: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether weight decay acts on a parameter: matrices and convolution kernels alone.

    Biases, norms, embeddings, positions, the codebook and the attention's scale are left alone.
    """
    return path.split(".")[-1].endswith("kernel") and len(array.shape) >= 2


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, Adam's direction and weight decay; its result is to be times -learning rate."""

    def mask(params: Mapping[str, jax.Array]) -> dict[str, bool]:
        return {path: decays(path, array) for path, array in params.items()}

    parts = [
        optax.scale_by_adam(b1=config.beta1, b2=config.beta2),
        optax.add_decayed_weights(config.weight_decay, mask=mask),
    ]
    if config.clip_norm:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    return optax.chain(*parts)
