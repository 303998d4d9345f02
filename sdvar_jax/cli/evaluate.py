"""``sdvar evaluate``: many samples by any decoder, and how good they are."""

from __future__ import annotations

import dataclasses
import inspect
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sdvar_jax.cli.choices import DType, Kernels, Weights
from sdvar_jax.cli.decoders import DecoderOptions
from sdvar_jax.cli.labels import parse_labels
from sdvar_jax.cli.options import (
    DEFAULT_MODEL,
    OUTPUT,
    SAMPLING,
    BatchSizeOption,
    CfgOption,
    DraftOption,
    DTypeOption,
    GuidanceScheduleOption,
    GuidanceUntilOption,
    KernelsOption,
    ModelOption,
    QuietOption,
    SeedOption,
    TopKOption,
    TopPOption,
    VqvaeOption,
    WeightsOption,
)
from sdvar_jax.cli.outputs import check_outputs, write_json
from sdvar_jax.cli.sample import sample
from sdvar_jax.cli.sampling import SamplingOptions
from sdvar_jax.cli.terminal import in_seconds, picture_progress, say, show_table
from sdvar_jax.errors import SdvarError

if TYPE_CHECKING:
    from sdvar_jax.data import ImageSource
    from sdvar_jax.evaluation import Quality, SampleDirectory
    from sdvar_jax.evaluation.features import FeatureExtractor

MEASURES = "Measures"


def _with_decoder_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the decoder options of ``sdvar sample``; they come as keyword arguments."""
    names = {field.name for field in dataclasses.fields(DecoderOptions)} - {"trace"}
    hints = typing.get_type_hints(sample, include_extras=True)
    borrowed = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(sample).parameters.items()
        if name in names
    ]
    hints_of_own = typing.get_type_hints(command, include_extras=True)
    own = [
        parameter.replace(annotation=hints_of_own[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.kind != inspect.Parameter.VAR_KEYWORD
    ]
    signature = inspect.Signature([*own, *borrowed], return_annotation=None)
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in (*own, *borrowed)}
    return command


@_with_decoder_options
def evaluate(
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CLASS]...",
            help="Classes by number, range or name; without any, all.",
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    draft: DraftOption = None,
    vqvae: VqvaeOption = None,
    dtype: DTypeOption = DType.AUTO,
    kernels: KernelsOption = Kernels.AUTO,
    weights: WeightsOption = Weights.FLOAT,
    count: Annotated[
        int,
        typer.Option(
            "--count",
            "-n",
            metavar="N",
            min=1,
            help="Pictures of each class.",
            rich_help_panel=SAMPLING,
        ),
    ] = 10,
    seed: SeedOption = 0,
    cfg: CfgOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    guidance_schedule: GuidanceScheduleOption = None,
    guidance_until: GuidanceUntilOption = None,
    batch_size: BatchSizeOption = 16,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Directory of the pictures, in shards. The same command goes on where it was "
            "stopped; samples of other settings are refused.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("evaluation"),
    shard_batches: Annotated[
        int,
        typer.Option(
            "--shard-batches",
            metavar="N",
            min=1,
            help="Batches a shard; what a stopped run loses at most.",
            rich_help_panel=OUTPUT,
        ),
    ] = 16,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Measure against the real pictures of this set (`sdvar data`) in emoji features: "
            "Frechet distance, precision and recall. Not FID.",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            "--features",
            metavar="FILE",
            help="Weights of the classifier that makes the features.",
            show_default="the one that comes with sdvar",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            metavar="DIR",
            help="Measure against the samples of another run too, such as the target's own from "
            "another seed.",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    npz: Annotated[
        Path | None,
        typer.Option(
            "--npz",
            metavar="FILE.npz",
            help="Write the array that the OpenAI evaluator reads (256 px, class-balanced; 50,000 "
            "pictures are customary).",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    inception: Annotated[
        bool,
        typer.Option(
            "--inception",
            help="Measure the Inception Score with torch-fidelity (extra 'fid').",
            rich_help_panel=MEASURES,
        ),
    ] = False,
    fid_data: Annotated[
        Path | None,
        typer.Option(
            "--fid-data",
            metavar="DIR",
            help="Measure FID with torch-fidelity against the picture files in this directory.",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    inception_weights: Annotated[
        Path | None,
        typer.Option(
            "--inception-weights",
            metavar="FILE",
            help="The Inception network, for a machine without a network.",
            show_default="fetched by torch-fidelity",
            rich_help_panel=MEASURES,
        ),
    ] = None,
    stats: Annotated[
        Path | None,
        typer.Option(
            "--stats",
            metavar="FILE.json",
            help="Write settings, counts, times and all measures.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: QuietOption = False,
    **decoding: Any,
) -> None:
    """Make many pictures and measure how good they are.

    sdvar evaluate --count 50 --data emoji64.sdvar --decoder speculative --gamma 9

    sdvar evaluate --model checkpoints/d30 --count 50 --batch-size 64 --npz samples.npz

    Every figure comes with a 95 % interval of the samples' randomness.
    """
    start = time.perf_counter()
    # A flag that was not given says nothing.
    said = {name: None if value is False else value for name, value in decoding.items()}
    said["bonus"], said["match_top1"] = decoding["bonus"], decoding["match_top1"]
    wanted = DecoderOptions(**said)

    from sdvar_jax.cli.job import Job
    from sdvar_jax.evaluation.adm_npz import EVALUATOR_SIDE, write_adm_npz
    from sdvar_jax.evaluation.features import DEFAULT_FEATURES, load_features
    from sdvar_jax.evaluation.generate import GenerationPlan, balanced_labels, generate_samples
    from sdvar_jax.evaluation.samples import SampleDirectory
    from sdvar_jax.evaluation.torch_fidelity import check_torch_fidelity
    from sdvar_jax.loading import find_models

    settings = SamplingOptions(
        cfg=cfg,
        top_k=top_k,
        top_p=top_p,
        guidance_schedule=guidance_schedule,
        guidance_until=guidance_until,
    )
    chosen = wanted.build(draft_named=draft is not None)
    files = find_models(model, draft=draft, vqvae=vqvae)
    if not chosen.needs_draft:
        files = files.without_draft()
    config = settings.build(files.default_sampling)
    names = files.class_names
    classes = parse_labels(labels, names) if labels else list(range(len(names)))
    order = balanced_labels(len(classes), count)
    plan = GenerationPlan(
        labels=tuple(classes[number] for number in order),
        seed=seed,
        sampling=config,
        decoder=chosen,
        threshold=wanted.threshold,
        batch_size=batch_size,
        shard_batches=shard_batches,
    )
    job = Job(
        files=files,
        decoder=chosen,
        sampling=config,
        seed=seed,
        samples=len(plan.labels),
        batch_size=batch_size,
        dtype=str(dtype),
        kernels=str(kernels),
        weights=str(weights),
        threshold=wanted.threshold,
    )
    job.check()
    check_outputs({"--npz": npz, "--stats": stats})
    if inception or fid_data is not None:
        check_torch_fidelity()
    if fid_data is not None and not fid_data.is_dir():
        raise SdvarError(f"--fid-data: {fid_data} is no directory of pictures")
    if data is None and against is None and features is not None:
        raise SdvarError("--features does nothing without --data or --against")
    extractor = None
    if data is not None or against is not None:
        extractor = load_features(features or DEFAULT_FEATURES)
    other = None if against is None else SampleDirectory.open(against)
    if other is not None and not other.complete:
        raise SdvarError(f"--against: the samples in {against} are not complete")
    side = files.vqvae.config.image_side
    if npz is not None and side != EVALUATOR_SIDE:
        raise SdvarError(
            f"--npz: the OpenAI evaluator compares pictures of {EVALUATOR_SIDE} px, and the model "
            f"makes {side} px"
        )
    if npz is not None and len(set(classes)) != len(classes):
        raise SdvarError("--npz needs equally many pictures of each class; name each class once")
    if extractor is not None and side != extractor.config.image_side:
        raise SdvarError(
            f"the emoji features see pictures of {extractor.config.image_side} px, and the model "
            f"makes {side} px; use --npz or --inception"
        )

    pictures = None if data is None else _real_pictures(data, side, names)

    loaded = job.load(shown=not quiet)
    with picture_progress("making pictures", job.samples, shown=not quiet) as advance:
        samples = generate_samples(loaded.pipeline, plan, out, progress=advance)

    measures: dict[str, Any] = {}
    if extractor is not None:
        measures = _in_features(samples, extractor, pictures, other, names)
    if npz is not None:
        write_adm_npz(samples, npz)
    if inception or fid_data is not None:
        from sdvar_jax.evaluation.torch_fidelity import fidelity_metrics

        measures["torch-fidelity"] = fidelity_metrics(
            samples, fid_data, inception_weights=inception_weights
        )
    report = _report(job, samples, measures, loaded.seconds, time.perf_counter() - start)
    if stats is not None:
        write_json(stats, report)
    if not quiet:
        show_table(_rows(samples, report, measures))
    for path in (out, npz, stats):
        if path is not None:
            say(f"wrote {path}")


def _real_pictures(data: Path, side: int, names: tuple[str, ...]) -> ImageSource:
    """The training pictures of a set, which must be of the model's classes."""
    from sdvar_jax.data import load_dataset

    pictures = load_dataset(data, "train", size=side)
    foreign = sorted(set(pictures.class_names) - set(names))
    if foreign:
        raise SdvarError(f"--data: the model has no class {', '.join(foreign[:3])}")
    return pictures


def _in_features(
    samples: SampleDirectory,
    extractor: FeatureExtractor,
    pictures: ImageSource | None,
    other: SampleDirectory | None,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """What is measured in emoji features, by what the samples are compared with."""
    import numpy as np

    from sdvar_jax.evaluation.features import of_samples
    from sdvar_jax.evaluation.measure import FeatureSet, Reference

    own = of_samples(extractor, samples)
    # What the classifier sees can only be judged where its classes are the model's.
    if extractor.class_names != names:
        own = dataclasses.replace(own, predicted=None)
    found: dict[str, Any] = {}
    if pictures is not None:
        number = np.array([names.index(name) for name in pictures.class_names])
        real, _ = extractor(pictures.gather(np.arange(len(pictures)))[0])
        found["real"] = Reference(FeatureSet(real, number[pictures.labels])).quality(own)
    if other is not None:
        found["samples"] = Reference(of_samples(extractor, other)).quality(own)
    return found


def _report(
    job: Any,
    samples: SampleDirectory,
    measures: dict[str, Any],
    load_seconds: float,
    seconds: float,
) -> dict[str, Any]:
    """What ``--stats`` writes."""
    from sdvar_jax.cli.report import device, versions
    from sdvar_jax.evaluation.generate import joined_seconds, joined_statistics
    from sdvar_jax.runtime.memory import peak_host_memory, peak_memory

    return {
        "command": "evaluate",
        "versions": versions(),
        "device": device(),
        "settings": samples.settings,
        "samples": len(samples),
        "samples_directory": str(samples.path),
        "seconds": {"load": load_seconds, **joined_seconds(samples), "total": seconds},
        "peak_memory_bytes": {"devices": list(peak_memory()), "host": peak_host_memory()},
        "statistics": joined_statistics(samples),
        "measures": {
            name: value if isinstance(value, dict) else value.to_dict()
            for name, value in measures.items()
        },
    }


def _rows(
    samples: SampleDirectory, report: dict[str, Any], measures: dict[str, Any]
) -> list[tuple[str, str]]:
    """The short table of the terminal."""
    count = len(samples)
    rows = [("pictures", f"{count} in {samples.num_shards} shards")]
    for phase, meaning in (("tokens", "making tokens"), ("images", "decoding pictures")):
        if phase in report["seconds"]:
            spent = report["seconds"][phase]
            rows.append((meaning, f"{in_seconds(spent)} ({in_seconds(spent / count)} a picture)"))
    statistics = report["statistics"]
    if statistics is not None:
        rows.append(("target calls a batch", f"{statistics['target_calls_per_batch']:.2f}"))
        for name in ("acceptance_rate", "token_agreement_rate"):
            if statistics[name] is not None:
                label = name.removesuffix("_rate").replace("_", " ")
                rows.append((label, f"{100 * statistics[name]:.1f} %"))
    for name, value in measures.items():
        if isinstance(value, dict):
            rows += [(key.replace("_", " "), f"{number:.4g}") for key, number in value.items()]
        else:
            rows += _quality_rows(name, value)
    return rows


def _quality_rows(name: str, quality: Quality) -> list[tuple[str, str]]:
    to = "real pictures" if name == "real" else "the other samples"
    rows = [(f"Frechet distance to {to} (emoji features)", str(quality.frechet))]
    for word, value in (
        ("precision", quality.precision),
        ("recall", quality.recall),
        ("class recognised", quality.accuracy),
    ):
        if value is not None and not (word == "class recognised" and name != "real"):
            rows.append((word if name == "real" else f"{word} against {to}", value.percent()))
    return rows
