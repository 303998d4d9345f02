"""Making many samples with any decoder, in shards, so that a killed run goes on where it stood."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from sdvar_jax.config.validation import require
from sdvar_jax.decoding import Decoder, DecodingStatistics, TargetOnly
from sdvar_jax.evaluation.samples import SampleDirectory, Shard
from sdvar_jax.imaging.files import to_uint8
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.sampling import SamplingConfig

Progress = Callable[[int], None]

# Of a run's statistics, what is not kept: it is as long as the run.
_LONG = ("windows", "makers")


def balanced_labels(num_classes: int, per_class: int) -> np.ndarray:
    """``per_class`` of each class, the classes taking turns, int32 [num_classes * per_class].

    Raises:
      SdvarError: either number is not positive.
    """
    require(
        num_classes >= 1 and per_class >= 1,
        f"give one or more samples of one or more classes, got {per_class} of {num_classes}",
    )
    return np.tile(np.arange(num_classes, dtype=np.int32), per_class)


@dataclasses.dataclass(frozen=True)
class GenerationPlan:
    """What is to be made.

    Attributes:
      labels: one a picture.
      seed: of the noise; picture i is fixed by (seed, i).
      sampling: guidance and filtering; None for the pipeline's ``default_sampling``.
      decoder: how token maps are made.
      threshold: the acceptance rule's dial, None for its default.
      batch_size: pictures a program call. Under relaxed rules the pictures of a batch depend on
        each other, so it is one of the settings that a resumed run must repeat.
      shard_batches: program calls a shard.
    """

    labels: tuple[int, ...]
    seed: int = 0
    sampling: SamplingConfig | None = None
    decoder: Decoder = TargetOnly()
    threshold: float | None = None
    batch_size: int = 16
    shard_batches: int = 16

    def __post_init__(self) -> None:
        require(len(self.labels) > 0, "there is nothing to make: no label was given")
        require(self.batch_size >= 1, f"batch_size must be positive, got {self.batch_size}")
        require(
            self.shard_batches >= 1, f"shard_batches must be positive, got {self.shard_batches}"
        )

    @property
    def shard_size(self) -> int:
        """Pictures a shard."""
        return self.batch_size * self.shard_batches

    def settings(self) -> dict[str, Any]:
        """Everything but the models and labels that decides the pictures, as JSON values."""
        return {
            "seed": self.seed,
            "sampling": None if self.sampling is None else dataclasses.asdict(self.sampling),
            "decoder": {"name": self.decoder.name, **_described(self.decoder)},
            "threshold": (
                self.decoder.default_threshold if self.threshold is None else self.threshold
            ),
            "batch_size": self.batch_size,
        }


def _described(value: Any) -> dict[str, Any]:
    """A frozen dataclass as JSON values; nested ones with their names."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if dataclasses.is_dataclass(item):
            name = getattr(item, "name", type(item).__name__)
            item = {"name": name, **_described(item)}
        found[field.name] = item
    return found


def weights_digest(pipeline: Pipeline, *, draft: bool) -> str:
    """SHA-256 of the models' shapes and weights, as they are loaded.

    Args:
      pipeline: the models.
      draft: whether the draft counts.
    """
    digest = hashlib.sha256()
    models: list[Any] = [pipeline.target, pipeline.vqvae]
    if draft and pipeline.draft is not None:
        models.append(pipeline.draft)
    for model in models:
        digest.update(repr(model.config).encode())
        for path, leaf in nnx.to_flat_state(nnx.state(model)):
            array = np.ascontiguousarray(jax.device_get(leaf[...]))
            digest.update(f"{path} {array.dtype} {array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def start(pipeline: Pipeline, plan: GenerationPlan, directory: str | Path) -> SampleDirectory:
    """The directory of a run, begun or to be gone on with.

    Raises:
      SdvarError: the settings do not suit the models, or the directory holds something else.
    """
    labels = pipeline.check_labels(plan.labels)
    sampling = plan.sampling or pipeline.default_sampling
    pipeline.prepare(plan.decoder, sampling, plan.threshold)
    settings = {
        **dataclasses.replace(plan, sampling=sampling).settings(),
        "weights": weights_digest(pipeline, draft=plan.decoder.needs_draft),
        "compute": str(pipeline.target.dtypes.compute),
        "kernels": pipeline.target.kernels,
        "filter_method": pipeline.filter_method,
    }
    return SampleDirectory.start(directory, settings, labels, plan.shard_size)


def generate_samples(
    pipeline: Pipeline,
    plan: GenerationPlan,
    directory: str | Path,
    *,
    progress: Progress | None = None,
) -> SampleDirectory:
    """Makes the samples of a plan that are not there yet.

    Each shard is one ``Pipeline.sample`` call with its own numbers of pictures, so that a run that
    was interrupted ends with the same files as one that was not.

    Args:
      pipeline: the models.
      plan: what is to be made.
      directory: where shards are written, see ``evaluation.samples``.
      progress: called with the number of pictures that are there.

    Raises:
      SdvarError: the settings do not suit the models, or the directory holds something else or
        samples made with other settings.
    """
    samples = start(pipeline, plan, directory)
    missing = samples.missing()
    rows = [samples.rows(index) for index in missing]
    done = len(samples) - sum(each.stop - each.start for each in rows)
    tell = progress or (lambda finished: None)
    tell(done)
    batch_size = min(plan.batch_size, len(samples))
    for index, each in zip(missing, rows, strict=True):
        labels = samples.labels[each]
        # A last shard shorter than a batch is filled up, so that one program serves all.
        short = max(0, batch_size - len(labels))
        result = pipeline.sample(
            np.pad(labels, (0, short), mode="edge").tolist(),
            seed=plan.seed,
            sampling=plan.sampling,
            decoder=plan.decoder,
            threshold=plan.threshold,
            batch_size=batch_size,
            first_sample=each.start,
            measure=True,
            progress=functools.partial(_told, tell, done, len(labels)),
        )
        samples.write(
            index,
            Shard(
                first=each.start,
                images=to_uint8(result.images[: len(labels)]),
                labels=labels,
                statistics=_kept(result.statistics, len(labels)),
                seconds=result.timings,
            ),
        )
        done += len(labels)
        tell(done)
    return samples


def _told(tell: Progress, done: int, of_shard: int, finished: int) -> None:
    """Tells how many pictures are there when ``finished`` of a shard are, fillers included."""
    tell(done + min(finished, of_shard))


def _kept(statistics: DecodingStatistics | None, samples: int) -> dict[str, Any] | None:
    """What a shard of ``samples`` pictures keeps of its statistics."""
    if statistics is None:
        return None
    kept = {key: value for key, value in statistics.to_dict().items() if key not in _LONG}
    return {**kept, "samples": samples}


def joined_statistics(samples: SampleDirectory) -> dict[str, Any] | None:
    """Counts of all shards together, rates made anew from them; None without any."""
    parts = [shard.statistics for shard in samples.shards()]
    found = [part for part in parts if part is not None]
    if not found:
        return None
    total: dict[str, Any] = {}
    for key, value in found[0].items():
        if isinstance(value, bool | str) or value is None or isinstance(value, float):
            continue
        if isinstance(value, list):
            if value and isinstance(value[0], int):
                total[key] = np.sum([part[key] for part in found], axis=0).tolist()
        else:
            total[key] = sum(part[key] for part in found)
    judged = total["num_accepted_scales"] + sum(total["rejected_scales_per_scale"])
    total["target_calls_per_batch"] = total["target_calls"] / total["batches"]
    total["acceptance_rate"] = _rate(total["num_accepted_scales"], total["num_draft_scales"])
    total["judged_acceptance_rate"] = _rate(total["num_accepted_scales"], judged)
    total["token_agreement_rate"] = _rate(
        sum(total["agreed_tokens_per_scale"]), total["num_draft_tokens"]
    )
    return total


def _rate(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def joined_seconds(samples: SampleDirectory) -> dict[str, float]:
    """Seconds a phase of all shards together."""
    total: dict[str, float] = {}
    for shard in samples.shards():
        for phase, seconds in shard.seconds.items():
            total[phase] = total.get(phase, 0.0) + seconds
    return total
