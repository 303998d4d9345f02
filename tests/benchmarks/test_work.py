"""The floor's arithmetic against parameter counts and the compiler's own counts."""

import jax
import pytest
from flax import nnx

from benchmarks.floor import sequential_floor
from benchmarks.random_models import TINY, random_model, vqvae_config
from benchmarks.work import (
    Ceilings,
    Convolution,
    Work,
    block_parameters,
    decode_work,
    decoder_layers,
    forward_work,
    modulation_parameters,
    modulation_work,
)
from sdvar_jax.checkpoint.assembly import abstract_arrays
from sdvar_jax.config import FLOAT32, VARConfig, VQVAEConfig, preset
from sdvar_jax.errors import SdvarError

CEILINGS = Ceilings(bytes_per_second=4e12, flops_per_second=8e14, float32_flops_per_second=4e14)


def kernels(config, *, containing=""):
    """Parameters of all matrices and convolutions whose path holds ``containing``."""
    return sum(
        array.size
        for path, array in abstract_arrays(config).items()
        if path.endswith("kernel") and containing in path
    )


@pytest.mark.parametrize("shared", [False, True])
def test_counts_every_matrix_of_the_transformer_once(shared):
    config = VARConfig.of_depth(3, shared_aln=shared)
    modulations = kernels(config, containing="ada_lin")
    assert modulation_parameters(config) == modulations
    blocks = kernels(config) - modulations
    other = kernels(config, containing="head_kernel") + kernels(config, containing="word_embed")
    assert config.depth * block_parameters(config) == blocks - other


def test_counts_every_convolution_of_the_image_decoder_once():
    config = VQVAEConfig(channels=64, channel_multipliers=(1, 2, 4), residual_blocks=1)
    counted = sum(
        layer.parameters for layer in decoder_layers(config) if isinstance(layer, Convolution)
    )
    decoder = sum(
        array.size
        for path, array in abstract_arrays(config).items()
        if path.endswith("kernel") and path.startswith(("decoder.", "post_quant_conv."))
    )
    assert counted == decoder


def test_operations_of_the_image_decoder_are_those_the_compiler_counts():
    config = vqvae_config(TINY)
    vqvae = random_model(config, FLOAT32)
    definition, weights = nnx.split(vqvae)
    side, channels = config.pyramid.latent_side, config.latent_channels
    f_hat = jax.ShapeDtypeStruct((2, side, side, channels), "float32")
    lowered = jax.jit(lambda w, f: nnx.merge(definition, w).decode(f)).lower(weights, f_hat)
    # The compiler counts elementwise work as well, and no products with padding.
    assert decode_work(config, 2, 4).flops == pytest.approx(
        lowered.cost_analysis()["flops"], rel=0.2
    )


def test_a_window_takes_the_operations_of_its_scales_but_reads_the_weights_once():
    config = preset("d16")
    window = forward_work(config, 0, 7, 2, 2)
    scales = [forward_work(config, s, s + 1, 2, 2) for s in range(7)]
    assert window.flops == sum(work.flops for work in scales)
    assert window.float32_flops == sum(work.float32_flops for work in scales)
    assert window.bytes < sum(work.bytes for work in scales) / 4


def test_the_first_scale_costs_reading_the_weights():
    config = preset("d30")
    work = forward_work(config, 0, 1, 2, 2)
    weights = config.depth * block_parameters(config) + config.width * config.vocab_size
    assert work.bytes == pytest.approx(2 * weights, rel=1e-3)
    assert work.seconds(CEILINGS) == work.memory_seconds(CEILINGS)


def test_int8_blocks_halve_what_the_first_scale_reads_but_for_the_head():
    config = preset("d30")
    own, eight = (forward_work(config, 0, 1, 2, 2, size) for size in (None, 1))
    assert own.bytes - eight.bytes == config.depth * block_parameters(config)
    assert (own.flops, own.float32_flops) == (eight.flops, eight.float32_flops)
    floors = [
        sequential_floor(config, VQVAEConfig(), 1, CEILINGS, block_itemsize=size)
        for size in (None, 2, 1)
    ]
    assert floors[0] == floors[1]
    assert 0.5 < floors[2].memory / floors[1].memory < 0.6


def test_the_floor_is_the_sum_of_its_parts_and_grows_slower_than_the_batch():
    config, vqvae = preset("d30"), VQVAEConfig()
    one, many = (sequential_floor(config, vqvae, batch, CEILINGS) for batch in (1, 32))
    rows = modulation_work(config, 2, 2).seconds(CEILINGS)
    assert one.total == pytest.approx(rows + sum(one.scales) + one.images)
    assert one.transformer < many.transformer < 32 * one.transformer
    assert one.transformer >= max(one.memory, one.arithmetic)


def test_guidance_doubles_the_operations_alone():
    config, vqvae = preset("d16"), VQVAEConfig()
    guided, alone = (sequential_floor(config, vqvae, 8, CEILINGS, guided=g) for g in (True, False))
    assert guided.arithmetic == pytest.approx(2 * alone.arithmetic)
    assert guided.memory < 2 * alone.memory
    assert guided.images == alone.images


def test_work_adds_up():
    total = sum([Work(1.0, 2.0, 3.0), Work(10.0, 20.0, 30.0)], start=Work())
    assert total == Work(11.0, 22.0, 33.0)


def test_ceilings_must_be_positive():
    with pytest.raises(SdvarError, match="positive"):
        Ceilings(0.0, 1.0, 1.0)
