"""Models that compile in a moment: for tests of what stands around the models."""

import functools

import jax.numpy as jnp
import numpy as np

from sdvar_jax.checkpoint.assembly import abstract_arrays, assemble
from sdvar_jax.config import FLOAT32, ScalePyramid, VARConfig, VQVAEConfig
from sdvar_jax.models import block_causal_mask

SMALL_PYRAMID = ScalePyramid((1, 2, 3))
SMALL_CLASSES = 10
SMALL_VQVAE = VQVAEConfig(
    pyramid=SMALL_PYRAMID,
    vocab_size=32,
    latent_channels=8,
    channels=32,
    channel_multipliers=(1, 1),
    residual_blocks=1,
    shared_convolutions=2,
    attention=False,
    mid_attention=False,
)
SMALL_SIDE = SMALL_VQVAE.image_side


def small_var_config(width=32, **options):
    values = {
        "depth": 1,
        "width": width,
        "heads": 2,
        "pyramid": SMALL_PYRAMID,
        "vocab_size": 32,
        "latent_channels": 8,
        "num_classes": SMALL_CLASSES,
    }
    return VARConfig(**{**values, **options})


@functools.cache
def small_model(config, seed=0, dtypes=FLOAT32):
    """A model of ``config`` with random weights."""
    random = np.random.default_rng(seed)
    arrays = {}
    for path, leaf in abstract_arrays(config).items():
        fan_in = np.prod(leaf.shape[:-1], dtype=int) if len(leaf.shape) > 1 else 1
        noise = random.standard_normal(leaf.shape) / np.sqrt(fan_in)
        if "norm" in path and path.endswith("scale"):
            noise = 1 + 0.1 * noise
        if path == "quantizer.codebook" or "embed" in path:
            noise = noise * np.sqrt(fan_in)
        arrays[path] = noise.astype(np.float32)
    return assemble(config, arrays, dtypes)


def small_vqvae(dtypes=FLOAT32):
    return small_model(SMALL_VQVAE, 1, dtypes)


def small_target():
    return small_model(small_var_config(), 2)


def small_draft():
    return small_model(small_var_config(width=16), 3)


def hidden_over_windows(model, windows, rows=3):
    """Hidden states of the windows, one after the other over one cache, and the cache.

    It has room for these windows alone.
    """
    random, pyramid = np.random.default_rng(0), model.config.pyramid
    modulations = model.modulations(jnp.asarray([1, 4, 10][:rows]))
    cache = model.make_cache(rows, windows[-1][1])
    outs = []
    for start, stop in windows:
        offset, end = pyramid.offsets[start], pyramid.offsets[stop]
        shape = (rows, end - offset, model.config.width)
        x = jnp.asarray(random.standard_normal(shape), jnp.float32)
        mask = None if stop - start == 1 else block_causal_mask(pyramid, start, stop)
        x, cache = model.hidden(x, modulations, cache, offset, mask)
        outs.append(x)
    return outs, cache
