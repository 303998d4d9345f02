"""Tiny models and pictures for the tests of training."""

import numpy as np
from flax import nnx

from sdvar_jax.config import ScalePyramid, VARConfig, VQVAEConfig
from sdvar_jax.models import VAR, VQVAE

PYRAMID = ScalePyramid((1, 2, 4))
VQVAE_CONFIG = VQVAEConfig(
    pyramid=PYRAMID,
    vocab_size=24,
    latent_channels=4,
    channels=32,
    channel_multipliers=(1, 1),
    residual_blocks=1,
    shared_convolutions=2,
    attention=False,
    mid_attention=False,
)
VAR_CONFIG = VARConfig(
    depth=2,
    width=32,
    heads=2,
    pyramid=PYRAMID,
    vocab_size=24,
    latent_channels=4,
    num_classes=2,
    drop_path_rate=0.1,
)


class Pictures:
    """Two classes of 8 px pictures: a bright square on dark, upper left or lower right."""

    size = 8
    class_names = ("upper left", "lower right")

    def __init__(self, count=32, seed=0):
        rng = np.random.default_rng(seed)
        self.labels = (np.arange(count) % 2).astype(np.int32)
        self.glyphs = tuple(f"glyph {i % 5}" for i in range(count))
        self.images = np.full((count, 8, 8, 3), 40, np.uint8)
        for i, label in enumerate(self.labels):
            start, side = (0, 4)[label] + rng.integers(2), 1 + rng.integers(3)
            colour = rng.integers(100, 256, 3)
            self.images[i, start : start + side, start : start + side] = colour

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self.images[index], "label": self.labels[index]}

    def gather(self, indices):
        return self.images[indices], self.labels[indices]


def lively_vqvae():
    """Random weights, with codebook entries far enough apart."""
    model = VQVAE(VQVAE_CONFIG, rngs=nnx.Rngs(0))
    model.quantizer.codebook[...] = model.quantizer.codebook[...] * 10.0
    return model


def lively_var(seed, config=VAR_CONFIG):
    """Weights with life in every part: the initial ones make constant logits."""
    model = VAR(config, rngs=nnx.Rngs(seed))
    rng = np.random.default_rng(seed)
    for _, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        leaf.set_value(leaf[...] + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32))
    return model
