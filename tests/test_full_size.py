"""The official size: a d16 and its VQVAE as published, converted, loaded and sampled on a CPU."""

import resource
import time

import numpy as np
import pytest
from agreement import assert_same_tokens, margin
from golden_weights import fill, official_manifest

pytestmark = [pytest.mark.slow, pytest.mark.torch]

LABEL = 207
UNCERTAIN = 4e-4


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """``var_d16.pth`` and the VQVAE's, in the official layout; removed afterwards."""
    import torch

    directory = tmp_path_factory.mktemp("official")
    paths = []
    for name in ("var_d16", "vae_ch160v4096z32"):
        state = fill(official_manifest(name))
        paths.append(directory / f"{name}.pth")
        torch.save({key: torch.from_numpy(value) for key, value in state.items()}, paths[-1])
        del state
    yield paths
    for path in paths:
        path.unlink()


@pytest.fixture(scope="module")
def pipeline(files, tmp_path_factory):
    """Converted and loaded, float32."""
    import shutil

    from convert.to_flax import convert
    from sdvar_jax import load_pipeline

    output = tmp_path_factory.mktemp("converted") / "d16"
    start = time.perf_counter()
    convert(files, output)
    print(f"converted in {time.perf_counter() - start:.0f} s")
    start = time.perf_counter()
    loaded = load_pipeline(output, dtype="float32")
    print(f"loaded in {time.perf_counter() - start:.0f} s")
    shutil.rmtree(output)
    return loaded


def _sample(pipeline, **sampling):
    from sdvar_jax import SamplingConfig

    start = time.perf_counter()
    result = pipeline.sample([LABEL], seed=1, sampling=SamplingConfig(**sampling))
    seconds, compiling = time.perf_counter() - start, result.timings["compile"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"sampled in {seconds - compiling:.0f} s after {compiling:.0f} s of compiling; "
        f"peak memory so far {peak:.1f} GiB"
    )
    return result


def test_one_picture(pipeline):
    from sdvar_jax.config import PYRAMID_256, VQVAEConfig, preset

    assert pipeline.target.config == preset("d16")
    assert pipeline.vqvae.config == VQVAEConfig()
    result = _sample(pipeline)
    assert result.images.shape == (1, 256, 256, 3)
    assert result.images.min() >= 0.0
    assert result.images.max() <= 1.0
    assert result.images.std() > 0.01
    assert [scale.shape for scale in result.tokens] == [(1, n) for n in PYRAMID_256.lengths]
    assert all(((scale >= 0) & (scale < 4096)).all() for scale in result.tokens)


def test_greedy_tokens_are_the_best_of_the_teacher_forced_forward(pipeline):
    """Ten forwards over the KV cache choose what one block-causal forward ranks first."""
    import jax
    import jax.numpy as jnp
    from parity_models import compiled

    from sdvar_jax.models import VAR

    result = _sample(pipeline, cfg=0.0, top_k=1, top_p=0.0)
    quantizer = pipeline.vqvae.quantizer
    inputs = quantizer.teacher_forcing_inputs(
        quantizer.f_hats(tuple(map(jnp.asarray, result.tokens)))
    )
    logits = compiled(VAR.teacher_forced, pipeline.target, jnp.asarray([LABEL]), inputs)
    logits = np.split(jax.device_get(logits), quantizer.config.pyramid.offsets[1:-1], axis=1)
    best, margins = [scale.argmax(-1) for scale in logits], [margin(scale) for scale in logits]
    assert_same_tokens("tokens", result.tokens, best, margins, UNCERTAIN)


def test_greedy_tokens_are_the_originals(pipeline, files, var_repo):
    import torch
    from original_var import Original, quietly

    original = Original(var_repo)
    vqvae = original.vqvae(pipeline.vqvae.config)
    var = original.var(pipeline.target.config, vqvae)
    for module, file in zip((var, vqvae), files, strict=True):
        with quietly():
            module.load_state_dict(torch.load(file, weights_only=True, mmap=True), assign=True)
    start = time.perf_counter()
    wanted = original.generate(var, [LABEL], 1.5, top_k=1)
    print(f"the original sampled in {time.perf_counter() - start:.0f} s")
    result = _sample(pipeline, cfg=1.5, top_k=1, top_p=0.0)
    margins = [margin(logits) for logits in wanted.logits]
    if assert_same_tokens("tokens", result.tokens, wanted.tokens, margins, UNCERTAIN):
        np.testing.assert_allclose(result.images, wanted.images, atol=1e-3, rtol=0)
