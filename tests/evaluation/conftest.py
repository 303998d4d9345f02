"""A small pair that makes pictures of 8 px, and a classifier that sees them.

Whatever imports JAX is imported by the fixtures: JAX must not be loaded before the settings of
``tests/conftest.py`` are made.
"""

import pytest

CLASSES, SIDE = 3, 8


@pytest.fixture(scope="session")
def pipeline():
    from small_models import small_model

    from sdvar_jax.config import ScalePyramid, VARConfig, VQVAEConfig
    from sdvar_jax.pipeline import Pipeline

    common = {"pyramid": ScalePyramid((1, 2, 4)), "vocab_size": 8, "latent_channels": 4}
    vqvae = VQVAEConfig(
        **common,
        channels=32,
        channel_multipliers=(1, 1),
        residual_blocks=1,
        shared_convolutions=2,
        attention=False,
        mid_attention=False,
    )
    target, draft = (
        VARConfig(**common, depth=1, width=width, heads=2, num_classes=CLASSES) for width in (16, 8)
    )
    return Pipeline(small_model(target, 2), small_model(vqvae, 1), small_model(draft, 3))


@pytest.fixture(scope="session")
def network():
    from flax import nnx

    from sdvar_jax.evaluation.features import FeatureNetwork, FeaturesConfig

    config = FeaturesConfig(image_side=SIDE, num_classes=CLASSES, widths=(8, 16))
    return FeatureNetwork(config, rngs=nnx.Rngs(0))
