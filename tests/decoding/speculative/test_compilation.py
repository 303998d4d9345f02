"""One compiled program serves many requests, and running it leaves nothing behind."""

import contextlib
import gc
import os
from pathlib import Path

import jax
import pytest
from decoding_models import (
    decode,
    tiny_draft,
    tiny_models,
    tiny_request,
    tiny_target,
    var_config,
    vqvae_config,
)
from small_models import small_model

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding import Speculative
from sdvar_jax.decoding.speculative import Match
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.sampling import SamplingConfig

PYRAMID = ScalePyramid((1, 2))
RUNS = 200
# What the allocator may take and keep for reasons of its own.
SLACK_BYTES = 4 * 2**20


@contextlib.contextmanager
def counting_compiles():
    """Yields the list of backend compiles that happen within."""
    compiles = []

    def listen(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            compiles.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiles
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def pipeline():
    config = var_config(pyramid=PYRAMID)
    vqvae = small_model(vqvae_config(PYRAMID), 1)
    return Pipeline(tiny_target(config), vqvae, tiny_draft(0.1, config))


def sample(pipeline, gamma=1, labels=(0, 1), seed=0, threshold=None, **sampling):
    return pipeline.sample(
        labels,
        seed=seed,
        sampling=SamplingConfig(**{"top_k": 5, "top_p": 0.9, **sampling}),
        decoder=Speculative(gamma=gamma, accept=Match()),
        threshold=threshold,
    )


def test_nothing_compiles_anew_for_seeds_labels_guidance_filters_and_thresholds(pipeline):
    first = sample(pipeline)
    assert first.timings["compile"] > 0
    with counting_compiles() as compiles:
        others = [
            sample(pipeline, labels=(4, 2)),
            *(sample(pipeline, seed=seed) for seed in (1, 2, 2**32 - 1)),
            *(sample(pipeline, cfg=cfg) for cfg in (0.5, 4.0)),
            *(sample(pipeline, top_k=top_k) for top_k in (0, 1, 3)),
            *(sample(pipeline, top_p=top_p) for top_p in (0.0, 0.5)),
            *(sample(pipeline, threshold=threshold) for threshold in (0.0, 0.7, 1.0)),
            sample(pipeline, guidance_schedule="constant"),
        ]
    assert compiles == []
    assert all(other.timings["compile"] == 0 for other in others)


def test_another_gamma_compiles_anew(pipeline):
    sample(pipeline)
    with counting_compiles() as compiles:
        sample(pipeline, gamma=2)
    assert len(compiles) >= 1


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_many(count, first_seed):
    models, decoder = tiny_models(0.1), Speculative(gamma=2)
    for seed in range(first_seed, first_seed + count):
        decode(decoder, models, tiny_request((seed % 5,), seed))
    gc.collect()


def live_arrays():
    arrays = jax.live_arrays()
    return len(arrays), sum(array.nbytes for array in arrays)


def test_runs_leave_no_arrays_behind():
    run_many(3, 0)
    before = live_arrays()
    run_many(RUNS, 3)
    assert live_arrays() == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow():
    run_many(RUNS, 0)
    before = resident_bytes()
    run_many(RUNS, RUNS)
    assert resident_bytes() - before < SLACK_BYTES
