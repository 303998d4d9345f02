"""Making samples in shards: the same pictures, whether or not the run was interrupted."""

import dataclasses

import numpy as np
import pytest

from sdvar_jax.decoding import TargetOnly
from sdvar_jax.decoding.speculative import Match, Speculative
from sdvar_jax.errors import SdvarError
from sdvar_jax.evaluation.generate import (
    GenerationPlan,
    balanced_labels,
    generate_samples,
    joined_seconds,
    joined_statistics,
    start,
)
from sdvar_jax.evaluation.samples import SampleDirectory
from sdvar_jax.imaging.files import to_uint8
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.sampling import SamplingConfig

# Seven pictures in batches of two, two batches a shard: shards of 4 and 3.
PLAN = GenerationPlan(labels=(0, 1, 2, 0, 1, 2, 0), seed=3, batch_size=2, shard_batches=2)
SPECULATIVE = dataclasses.replace(
    PLAN, decoder=Speculative(gamma=2, accept=Match(), check_until=3), threshold=0.4
)


class Killed(BaseException):
    """Ends a run where it stands."""


def images(samples):
    return np.concatenate([shard.images for shard in samples.shards()])


@pytest.fixture(scope="module")
def unbroken(pipeline, tmp_path_factory):
    return generate_samples(pipeline, PLAN, tmp_path_factory.mktemp("unbroken") / "s")


def test_the_samples_are_those_of_one_call(pipeline, unbroken):
    result = pipeline.sample(PLAN.labels, seed=3, batch_size=2, measure=True)
    np.testing.assert_array_equal(images(unbroken), to_uint8(result.images))
    assert joined_seconds(unbroken)["tokens"] > 0
    assert joined_statistics(unbroken) is None


@pytest.mark.parametrize("killed_after", [0, 1])
def test_a_killed_run_ends_with_the_same_samples(
    pipeline, unbroken, tmp_path, monkeypatch, killed_after
):
    write, written = SampleDirectory.write, []

    def write_or_die(samples, index, shard):
        if len(written) == killed_after:
            raise Killed
        written.append(index)
        write(samples, index, shard)

    monkeypatch.setattr(SampleDirectory, "write", write_or_die)
    with pytest.raises(Killed):
        generate_samples(pipeline, PLAN, tmp_path / "s")
    monkeypatch.undo()
    assert len(SampleDirectory.open(tmp_path / "s").missing()) == 2 - killed_after
    resumed = generate_samples(pipeline, PLAN, tmp_path / "s")
    assert resumed.complete
    np.testing.assert_array_equal(images(resumed), images(unbroken))
    assert resumed.settings == unbroken.settings


def test_a_finished_run_makes_nothing_anew(pipeline, unbroken, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("a picture was made")

    monkeypatch.setattr(type(pipeline), "sample", fail)
    told = []
    generate_samples(pipeline, PLAN, unbroken.path, progress=told.append)
    assert told == [7]


def test_progress_counts_every_picture_once(pipeline, tmp_path):
    told = []
    generate_samples(pipeline, PLAN, tmp_path / "s", progress=told.append)
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == 7


def test_a_last_shard_below_a_batch_needs_no_other_program(pipeline, unbroken, tmp_path):
    plan = dataclasses.replace(PLAN, shard_batches=3)  # shards of 6 and 1
    programs = len(pipeline._compiled)
    samples = generate_samples(pipeline, plan, tmp_path / "s")
    assert len(pipeline._compiled) == programs
    np.testing.assert_array_equal(images(samples), images(unbroken))


def test_statistics_of_the_shards_add_up(pipeline, tmp_path):
    samples = generate_samples(pipeline, SPECULATIVE, tmp_path / "s")
    total, parts = joined_statistics(samples), [shard.statistics for shard in samples.shards()]
    assert total["samples"] == 7
    assert total["batches"] == 4
    for name in ("target_calls", "num_draft_scales", "num_accepted_scales"):
        assert total[name] == sum(part[name] for part in parts)
    assert total["acceptance_rate"] == pytest.approx(
        total["num_accepted_scales"] / total["num_draft_scales"]
    )
    assert total["target_calls_per_batch"] == total["target_calls"] / 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 4}, "seed"),
        ({"decoder": Speculative(gamma=2)}, "decoder"),
        ({"labels": (0, 1, 2, 0, 1, 2, 1)}, "labels"),
    ],
)
def test_samples_of_other_settings_are_not_mixed_in(pipeline, unbroken, change, named):
    with pytest.raises(SdvarError, match=f"other settings .*{named}"):
        generate_samples(pipeline, dataclasses.replace(PLAN, **change), unbroken.path)


def test_samples_of_other_weights_are_not_mixed_in(pipeline, unbroken):
    other = Pipeline(pipeline.draft, pipeline.vqvae)
    with pytest.raises(SdvarError, match="weights"):
        generate_samples(other, PLAN, unbroken.path)


def test_the_settings_tell_everything_about_the_decoder():
    settings = SPECULATIVE.settings()
    assert settings["decoder"]["name"] == "speculative"
    assert settings["decoder"]["accept"] == {"name": "match", "coupled": True}
    assert settings["threshold"] == 0.4
    assert GenerationPlan(labels=(0,), decoder=TargetOnly()).settings()["threshold"] == 1.0


def test_a_plan_without_sampling_settings_takes_the_pipelines(pipeline, tmp_path):
    settings = SamplingConfig(cfg=3.0, top_p=0.5)
    named = Pipeline(pipeline.target, pipeline.vqvae, default_sampling=settings)
    begun = start(named, PLAN, tmp_path / "samples")
    assert begun.settings["sampling"] == dataclasses.asdict(settings)


def test_classes_take_turns():
    assert balanced_labels(3, 2).tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("options", [{"labels": ()}, {"batch_size": 0}, {"shard_batches": 0}])
def test_a_plan_of_nothing_is_refused(options):
    with pytest.raises(SdvarError):
        GenerationPlan(**{"labels": (0,), **options})
