"""Finding models by name, and loading them."""

import numpy as np
import pytest
from small_models import small_draft, small_target, small_vqvae

from sdvar_jax.checkpoint import PartWeights, assemble, save_checkpoint
from sdvar_jax.errors import SdvarError
from sdvar_jax.loading import choose_dtypes, find_models, load_pipeline, load_vqvae
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.sampling import SamplingConfig

SETTINGS = SamplingConfig(cfg=3.0, top_k=7)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def pair(directory):
    models = {"var": small_target(), "vqvae": small_vqvae(), "draft": small_draft()}
    save_checkpoint(directory / "pair", storage="safetensors", **models)
    return directory / "pair"


@pytest.fixture(scope="module")
def target_alone(directory):
    save_checkpoint(
        directory / "target", storage="safetensors", var=small_target(), sampling=SETTINGS
    )
    return directory / "target"


@pytest.fixture(scope="module")
def draft_alone(directory):
    save_checkpoint(directory / "draft", storage="safetensors", var=small_draft())
    return directory / "draft"


def test_a_pair_has_everything(pair):
    files = find_models(pair)
    assert [(part.directory, part.name) for part in files.parts] == [
        (pair, "var"),
        (pair, "vqvae"),
        (pair, "draft"),
    ]
    assert files.size == sum(part.info.size for part in files.parts) > 0
    assert files.class_names[3] == "class 3"


def test_models_may_come_from_several_checkpoints(target_alone, draft_alone, pair):
    files = find_models(target_alone, draft=draft_alone, vqvae=pair)
    assert [(part.directory.name, part.name) for part in files.parts] == [
        ("target", "var"),
        ("pair", "vqvae"),
        ("draft", "var"),
    ]


def test_the_draft_of_a_pair_is_preferred_to_its_target(target_alone, pair):
    assert find_models(target_alone, vqvae=pair, draft=pair).draft.name == "draft"


def test_a_loaded_pipeline_has_the_models_weights(pair):
    pipeline = load_pipeline(pair, dtype="float32")
    np.testing.assert_array_equal(pipeline.target.head_kernel[...], small_target().head_kernel[...])
    np.testing.assert_array_equal(pipeline.draft.head_kernel[...], small_draft().head_kernel[...])
    assert pipeline.vqvae.config == small_vqvae().config


def test_weights_in_8_bits_sample(directory, pair):
    """What is sampled is what the rounded weights give, and says so nowhere but in the file."""
    rounded = PartWeights.of(small_target()).rounded_to_int8()
    save_checkpoint(directory / "int8", storage="safetensors", var=rounded, vqvae=small_vqvae())
    pipeline = load_pipeline(directory / "int8", draft=pair, dtype="float32")
    path = "blocks.0.ffn.fc2.kernel"
    kernel = PartWeights.of(pipeline.target).arrays[path].read()
    np.testing.assert_array_equal(kernel, rounded.arrays[path].read())
    assert (kernel != PartWeights.of(small_target()).arrays[path].read()).any()
    images = pipeline.sample([1, 2], seed=0).images
    floats = Pipeline(
        assemble(small_target().config, {k: v.read() for k, v in rounded.arrays.items()}),
        small_vqvae(),
    )
    np.testing.assert_array_equal(images, floats.sample([1, 2], seed=0).images)


def test_what_is_done_meanwhile_sees_the_same_pipeline_without_weights(pair):
    seen = []

    def meanwhile(planned):
        planned.compile(2)
        seen.append(planned)

    pipeline = load_pipeline(pair, dtype="float32", meanwhile=meanwhile, default_sampling=SETTINGS)
    (planned,) = seen
    assert planned.default_sampling == pipeline.default_sampling == SETTINGS
    with pytest.raises(SdvarError, match="no weights"):
        planned.sample([1, 2])
    result = pipeline.sample([1, 2])
    assert result.timings["compile"] == 0
    wanted = load_pipeline(pair, dtype="float32").sample([1, 2], sampling=SETTINGS)
    np.testing.assert_array_equal(result.images, wanted.images)


def test_what_goes_wrong_meanwhile_is_told(pair):
    with pytest.raises(SdvarError, match="batch size"):
        load_pipeline(pair, meanwhile=lambda planned: planned.compile(2, batch_size=0))


def test_the_target_decides_the_settings_of_sampling(target_alone, pair):
    files = find_models(target_alone, vqvae=pair, draft=pair)
    assert files.sampling == files.default_sampling == SETTINGS
    assert load_pipeline(target_alone, vqvae=pair, dtype="float32").default_sampling == SETTINGS
    files = find_models(pair, draft=target_alone)
    assert (files.sampling, files.default_sampling) == (None, SamplingConfig())
    assert load_pipeline(pair, dtype="float32").default_sampling == SamplingConfig()


def test_a_vqvae_alone(pair):
    assert load_vqvae(pair).dtypes.compute == "float32"


def test_the_dtype_follows_the_device(monkeypatch):
    assert choose_dtypes().compute == "float32"
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert choose_dtypes().compute == choose_dtypes().param == "bfloat16"
    assert choose_dtypes("float16").compute == "float16"
    with pytest.raises(SdvarError, match="unknown param dtype"):
        choose_dtypes("int8")


def test_a_checkpoint_without_a_vqvae_says_what_to_name(target_alone):
    with pytest.raises(SdvarError, match=r"holds no VQVAE.*--vqvae"):
        find_models(target_alone)
