"""What AdamW does to which parameter."""

import jax.numpy as jnp
import numpy as np
from training_models import VAR_CONFIG, VQVAE_CONFIG

from sdvar_jax.checkpoint import abstract_arrays
from sdvar_jax.training import OptimizerConfig
from sdvar_jax.training.optimizer import decays, make_optimizer


def decayed(config):
    return {path for path, array in abstract_arrays(config).items() if decays(path, array)}


def test_only_matrices_and_convolution_kernels_decay():
    var, vqvae = decayed(VAR_CONFIG), decayed(VQVAE_CONFIG)
    assert {"blocks.0.attn.qkv_kernel", "head_kernel", "word_embed.kernel"} <= var
    assert "quantizer.convolutions.0.kernel" in vqvae
    spared = {"class_embed", "pos_embed", "blocks.0.attn.scale_mul", "head_bias"}
    assert not spared & var
    assert not {"quantizer.codebook", "decoder.norm_out.scale"} & vqvae


def test_weight_decay_pulls_a_parameter_without_gradient_to_zero():
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5))
    params = {"a.kernel": jnp.ones((2, 2)), "a.bias": jnp.ones((2,))}
    still = {name: jnp.zeros_like(array) for name, array in params.items()}
    direction, _ = optimizer.update(still, optimizer.init(params), params)
    np.testing.assert_allclose(direction["a.kernel"], 0.5)
    np.testing.assert_allclose(direction["a.bias"], 0.0)


def test_gradients_are_clipped_to_the_global_norm_before_adam_sees_them():
    # Adam forgets a common factor, so the second moment tells what it was given.
    optimizer = make_optimizer(OptimizerConfig(clip_norm=1.0, beta2=0.0, weight_decay=0.0))
    params = {"a.kernel": jnp.zeros((1, 1)), "b.kernel": jnp.zeros((1, 1))}
    gradients = {"a.kernel": jnp.full((1, 1), 30.0), "b.kernel": jnp.full((1, 1), 40.0)}
    _, state = optimizer.update(gradients, optimizer.init(params), params)
    moments = next(part.nu for part in state if hasattr(part, "nu"))
    np.testing.assert_allclose(moments["a.kernel"], 0.6**2, rtol=1e-6)
    np.testing.assert_allclose(moments["b.kernel"], 0.8**2, rtol=1e-6)
