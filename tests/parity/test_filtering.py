"""Top-k and top-p keep the tokens that the original's sampler keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from original_var import quietly, tensor

from sdvar_jax.sampling.filtering import METHODS, filter_logits

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
@pytest.mark.parametrize(
    ("top_k", "top_p"), [(1, 0.0), (900, 0.0), (0, 0.5), (0, 0.96), (900, 0.96), (50, 0.3)]
)
def test_the_same_sets(original, top_k, top_p, spread, method):
    logits = np.random.RandomState(4).standard_normal((2, 30, 4096)).astype(np.float32) * spread
    logits = logits.astype(np.float32)
    left = tensor(logits)
    with quietly():
        # It writes -inf over what it drops.
        original.helpers.sample_with_top_k_top_p_(left, top_k=top_k, top_p=top_p)
    filtered = jax.jit(filter_logits, static_argnames="method")
    got = np.isfinite(filtered(jnp.asarray(logits), top_k, top_p, method))
    wanted = np.isfinite(left.numpy())
    print(f"kept {wanted.sum(-1).min()} to {wanted.sum(-1).max()}, differ {(got != wanted).sum()}")
    np.testing.assert_array_equal(got, wanted)
