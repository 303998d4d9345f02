"""Tiny models for the tests of the decoders, and one compiled function that runs any decoder.

Weights, labels, seed, guidance, filters and threshold are arguments of the compiled function, so
one compile a decoder, batch size and shape of models serves many combinations.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
import small_models
from flax import nnx

from sdvar_jax.config import ScalePyramid, VARConfig, VQVAEConfig
from sdvar_jax.decoding import DecodingModels, TokenSampling, make_request
from sdvar_jax.decoding.speculative.cost_model import DEFAULT_COST, CostModel, ForwardCost
from sdvar_jax.sampling import SamplingConfig

# Where asking what comes next costs nothing, adaptive windows are tried out as the run goes.
FREE_TURNS = dataclasses.replace(DEFAULT_COST, turn=0.0)
# A window of three scales pays if it passes; where a third may be lost, single drafts are tried.
TRYING = CostModel(draft=ForwardCost(1.0, 1e-3), target=ForwardCost(4.0, 1e-3), turn=3.0)


def _quick_compile():
    """Options of XLA that compile tiny programs several times as fast, and run them as fast."""
    wanted = {
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
    return {name: value for name, value in wanted.items() if _is_known(name, value)}


def _is_known(name, value):
    """Whether this version of XLA has the option."""
    try:
        jax.jit(lambda x: x, compiler_options={name: value})(0.0)
    except jax.errors.JaxRuntimeError:
        return False
    return True


QUICK_COMPILE = _quick_compile()

PYRAMID = ScalePyramid((1, 2, 3))
VOCAB = 8
CLASSES = 5
LATENT_CHANNELS = 4


def var_config(width=16, *, depth=1, pyramid=PYRAMID, vocab=VOCAB):
    return VARConfig(
        depth=depth,
        width=width,
        heads=2,
        pyramid=pyramid,
        vocab_size=vocab,
        latent_channels=LATENT_CHANNELS,
        num_classes=CLASSES,
        mlp_ratio=2.0,
    )


def vqvae_config(pyramid=PYRAMID, vocab=VOCAB):
    return VQVAEConfig(
        pyramid=pyramid,
        vocab_size=vocab,
        latent_channels=LATENT_CHANNELS,
        channels=32,
        channel_multipliers=(1,),
        residual_blocks=1,
        shared_convolutions=2,
        attention=False,
        mid_attention=False,
    )


def small_model(config, seed):
    """Real arrays even where a test asks for the model inside a compiled function."""
    with jax.ensure_compile_time_eval():
        return small_models.small_model(config, seed)


@functools.cache
def tiny_quantizer(pyramid=PYRAMID, vocab=VOCAB):
    return small_model(vqvae_config(pyramid, vocab), 1).quantizer


@functools.cache
def tiny_target(config=None, confidence=1.0):
    """The target; ``confidence`` scales its logits: how much they weigh against the noise."""
    return _confident(small_model(config or var_config(), 2), confidence)


@functools.cache
def tiny_draft(distance=1.0, config=None, confidence=1.0):
    """A draft of random weights, or of weights only ``distance`` of the way from the target's."""
    config = config or var_config()
    if distance == 1.0:
        return _confident(small_model(config, 3), confidence)
    graph, target = nnx.split(small_model(config, 2))
    mixed = jax.tree.map(
        lambda ours, other: ours + distance * (other - ours),
        target,
        nnx.state(small_model(config, 3)),
    )
    return _confident(nnx.merge(graph, mixed), confidence)


def _confident(model, confidence):
    if confidence == 1.0:
        return model
    graph, state = nnx.split(model)
    # The models are shared among the tests: change a copy.
    state = jax.tree.map(lambda array: array, state)
    state["head_kernel"].set_value(state["head_kernel"][...] * confidence)
    return nnx.merge(graph, state)


class Models(NamedTuple):
    """Target, quantizer and draft in two halves: what is compiled in, and the arrays."""

    graphs: tuple
    states: tuple

    @classmethod
    def of(cls, target, quantizer, draft=None):
        parts = [nnx.split(model) for model in (target, quantizer, draft) if model is not None]
        return cls(*(tuple(half) for half in zip(*parts, strict=True)))

    @property
    def without_draft(self):
        return Models(self.graphs[:2], self.states[:2])

    def merged(self):
        target, quantizer, *draft = (
            nnx.merge(graph, state) for graph, state in zip(*self, strict=True)
        )
        return DecodingModels(target=target, quantizer=quantizer, draft=draft[0] if draft else None)


def tiny_models(distance=1.0, *, pyramid=PYRAMID, vocab=VOCAB, draft=None, confidence=1.0):
    """Target, quantizer and a draft ``distance`` away, or one of the config ``draft``."""
    config = var_config(pyramid=pyramid, vocab=vocab)
    return Models.of(
        tiny_target(config, confidence),
        tiny_quantizer(pyramid, vocab),
        tiny_draft(distance, draft or config, confidence),
    )


def tiny_request(labels=(0,), seed=0, *, pyramid=PYRAMID, cfg=1.5, top_k=5, top_p=0.9, **options):
    config = SamplingConfig(cfg=cfg, top_k=top_k, top_p=top_p)
    return make_request(np.asarray(labels), seed, config, pyramid, **options)


@functools.partial(
    jax.jit, static_argnames=("graphs", "decoder", "sampling"), compiler_options=QUICK_COMPILE
)
def compiled_decode(graphs, states, request, decoder, sampling):
    return decoder.decode(Models(graphs, states).merged(), request, sampling)


def decode(decoder, models, request, sampling=None):
    """What a decoder makes, on the host.

    By default guidance at every scale and both filters are compiled in; strengths, top-k and top-p
    of 0 fit as well.
    """
    sampling = sampling or TokenSampling(guided_until=request.guidance.shape[0])
    if not decoder.needs_draft:
        models = models.without_draft
    return jax.device_get(compiled_decode(*models, request, decoder, sampling))
