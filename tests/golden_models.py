"""The golden models in Flax: weights by formula, carried over by the converter's own mapping."""

import functools

import numpy as np
from golden_weights import GOLDEN, fill, golden_manifest

from convert.mapping import to_flax
from sdvar_jax.checkpoint.assembly import assemble
from sdvar_jax.config import PYRAMID_256, ScalePyramid, VARConfig, VQVAEConfig

TINY_PYRAMID = ScalePyramid((1, 2, 3, 4))
TINY_VQVAE = VQVAEConfig(pyramid=TINY_PYRAMID, vocab_size=64, latent_channels=8, channels=32)
OFFICIAL_LAYOUT_VQVAE = VQVAEConfig(
    pyramid=PYRAMID_256, vocab_size=128, latent_channels=8, channels=32
)
HANDOFF_VQVAE = VQVAEConfig(pyramid=PYRAMID_256, vocab_size=32, latent_channels=8, channels=32)


def tiny_var(depth, **options):
    return VARConfig.of_depth(
        depth,
        width=64 * depth,
        pyramid=TINY_PYRAMID,
        vocab_size=64,
        latent_channels=8,
        num_classes=10,
        **options,
    )


def handoff_var(depth, width, heads):
    return VARConfig(
        depth=depth,
        width=width,
        heads=heads,
        pyramid=PYRAMID_256,
        vocab_size=32,
        latent_channels=8,
        num_classes=10,
    )


TINY_VARS = {
    "var_tiny_d2_l2": tiny_var(2),
    "var_tiny_d3_l2": tiny_var(3),
    "var_tiny_d2_nol2": tiny_var(2, heads=2, attn_l2_norm=False),
    "var_tiny_d2_saln_l2": tiny_var(2, shared_aln=True),
}


@functools.cache
def golden(name):
    """The arrays of a golden file."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)


@functools.cache
def golden_model(name, config, part=None):
    """The Flax model of a golden manifest, float32."""
    return assemble(config, to_flax(fill(golden_manifest(name, part)), config))


def nhwc(images):
    """[batch, channels, h, w] -> [batch, h, w, channels]."""
    return np.moveaxis(images, 1, -1)
