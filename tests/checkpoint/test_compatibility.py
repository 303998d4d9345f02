"""Every difference between models that ought to fit is named."""

import dataclasses

import pytest
from golden_models import TINY_VARS, TINY_VQVAE

from sdvar_jax.checkpoint import check_compatible, check_draft
from sdvar_jax.config import PYRAMID_256
from sdvar_jax.errors import SdvarError

VAR_CONFIG = TINY_VARS["var_tiny_d2_l2"]


def test_models_of_one_vqvae_fit():
    check_compatible(VAR_CONFIG, TINY_VQVAE)
    check_draft(TINY_VARS["var_tiny_d3_l2"], VAR_CONFIG)


def test_var_and_vqvae():
    other = dataclasses.replace(TINY_VQVAE, pyramid=PYRAMID_256, vocab_size=128, latent_channels=16)
    with pytest.raises(SdvarError) as caught:
        check_compatible(VAR_CONFIG, other)
    for difference in (
        "pyramid 1-2-3-4 and 1-2-3-4-5-6-8-10-13-16",
        "vocab_size 64 and 128",
        "latent_channels 8 and 16",
    ):
        assert difference in str(caught.value)


def test_draft_and_target():
    draft = dataclasses.replace(VAR_CONFIG, num_classes=1000, vocab_size=32)
    with pytest.raises(SdvarError, match="vocab_size 32 and 64; num_classes 1000 and 10"):
        check_draft(draft, VAR_CONFIG)
