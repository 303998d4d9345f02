"""``sdvar sample``: pictures of classes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from sdvar_jax.cli.choices import (
    Accept,
    BatchProgress,
    Commit,
    DecoderName,
    DType,
    Kernels,
    Order,
    Weights,
)
from sdvar_jax.cli.decoders import DecoderOptions
from sdvar_jax.cli.labels import default_labels, parse_labels
from sdvar_jax.cli.options import (
    DEFAULT_MODEL,
    OUTPUT,
    SAMPLING,
    BatchSizeOption,
    CfgOption,
    DevicesOption,
    DraftOption,
    DTypeOption,
    GuidanceScheduleOption,
    GuidanceUntilOption,
    KernelsOption,
    ModelOption,
    QuietOption,
    SeedOption,
    SinglesOption,
    StatsOption,
    TokensOption,
    TopKOption,
    TopPOption,
    VqvaeOption,
    WeightsOption,
)
from sdvar_jax.cli.outputs import (
    check_outputs,
    token_arrays,
    trace_arrays,
    write_arrays,
    write_json,
    write_singles,
)
from sdvar_jax.cli.sampling import SamplingOptions
from sdvar_jax.cli.terminal import say, show_table
from sdvar_jax.errors import SdvarError

DECODING, SPECULATION, HANDOFF = "Decoding", "Speculative decoding", "Handoff"

# Pictures of one class stand in one row up to this many.
_WIDEST = 12


def sample(
    labels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CLASS]...",
            help="Classes by number (207), range (3-5) or name ('golden retriever'). Without any, "
            "eight that show the range of the model; `sdvar info` lists them all.",
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
    ] = 1,
    seed: SeedOption = 0,
    cfg: CfgOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    more_smooth: Annotated[
        bool,
        typer.Option(
            "--more-smooth",
            help="Mix codebook entries for smoother pictures (not for measuring).",
            rich_help_panel=SAMPLING,
        ),
    ] = False,
    guidance_schedule: GuidanceScheduleOption = None,
    guidance_until: GuidanceUntilOption = None,
    batch_size: BatchSizeOption = 16,
    devices: DevicesOption = 1,
    decoder: Annotated[
        DecoderName | None,
        typer.Option(
            "--decoder",
            "-d",
            metavar="DECODER",
            help="Who makes the token maps. target, draft: that model alone. speculative: the "
            "draft proposes, the target checks several scales at once. handoff: one model begins, "
            "the other goes on, unchecked.",
            show_default="speculative if --draft is given, else target",
            rich_help_panel=DECODING,
        ),
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            "--gamma",
            metavar="GAMMA",
            help="Scales to draft before each check: a number; one for each start scale (2,3,4); "
            "or adaptive, from the acceptance seen so far.",
            show_default="3",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    accept: Annotated[
        Accept | None,
        typer.Option(
            "--accept",
            metavar="RULE",
            help="When a drafted scale passes. exact: the very picture of the target, whatever the "
            "draft. residual: exact in distribution, accepts more. Relaxed: match (share of tokens "
            "that agree), topk (share within the target's top k), kl (divergence under a bound).",
            show_default="exact",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            metavar="T",
            help="The dial of a relaxed rule: the share of tokens that must pass (match 0.5, topk "
            "1), or the most divergence a token in nats (kl 0.1).",
            show_default="the rule's own",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    accept_top_k: Annotated[
        int | None,
        typer.Option(
            "--accept-top-k",
            metavar="K",
            min=1,
            help="The k of --accept topk.",
            show_default="10",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    match_top1: Annotated[
        bool | None,
        typer.Option(
            "--match-top1/--match-coupled",
            help="Whether --accept match compares with the target's most likely token, as "
            "published, or with its draw under the same noise.",
            show_default="coupled",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    commit: Annotated[
        Commit | None,
        typer.Option(
            "--commit",
            help="Whose tokens of an accepted scale are kept under a relaxed rule.",
            show_default="target",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    bonus: Annotated[
        bool | None,
        typer.Option(
            "--bonus/--no-bonus",
            help="Check one scale more than was drafted; it comes for free.",
            show_default="bonus",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    recycle: Annotated[
        bool,
        typer.Option(
            "--recycle",
            help="After a rejection propose the target's own tokens for the later scales in place "
            "of a new draft.",
            rich_help_panel=SPECULATION,
        ),
    ] = False,
    refine: Annotated[
        int | None,
        typer.Option(
            "--refine",
            metavar="J",
            min=1,
            help="The draft makes all scales and the target corrects all of them, J times at most.",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    check_until: Annotated[
        int | None,
        typer.Option(
            "--check-until",
            metavar="K",
            min=1,
            help="Check the first K scales only; the draft alone makes the rest, which hold most "
            "of the tokens.",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    progress: Annotated[
        BatchProgress | None,
        typer.Option(
            "--progress",
            metavar="RULE",
            help="How a batch advances. per-sample: each keeps what it got beyond the slowest one; "
            "minimum: all go back to it.",
            show_default="per-sample",
            rich_help_panel=SPECULATION,
        ),
    ] = None,
    self_draft: Annotated[
        bool,
        typer.Option(
            "--self-draft",
            help="No draft model: the target's own tokens are the only proposals.",
            rich_help_panel=SPECULATION,
        ),
    ] = False,
    entry: Annotated[
        int | None,
        typer.Option(
            "--entry",
            metavar="N",
            min=0,
            help="Scales that the first model makes; the second makes the rest.",
            rich_help_panel=HANDOFF,
        ),
    ] = None,
    order: Annotated[
        Order | None,
        typer.Option(
            "--order",
            help="Which model comes first.",
            show_default="target-draft",
            rich_help_panel=HANDOFF,
        ),
    ] = None,
    mask: Annotated[
        int | None,
        typer.Option(
            "--mask",
            metavar="M",
            min=0,
            max=5,
            help="What the second model sees as it enters, 0 to 5 as published; only 3 is correct.",
            show_default="3",
            rich_help_panel=HANDOFF,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.png",
            help="Write all pictures with their labels as one grid.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("sdvar.png"),
    singles: SinglesOption = None,
    tokens: TokensOption = None,
    stats: StatsOption = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE.npz",
            help="Write what happened at each check of speculative decoding: proposed and "
            "committed tokens, progress, f_hat. Slower.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    strip: Annotated[
        Path | None,
        typer.Option(
            "--strip",
            metavar="FILE.png",
            help="Draw the first picture as it stood after each scale, with who made the scale.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Make pictures of classes.

    The simplest call is `sdvar sample`. Some others:

    sdvar sample 207 "red fox" 3-5 --count 4 --seed 7 --model checkpoints/d30

    sdvar sample --model checkpoints/d30 --draft checkpoints/d16 --gamma 3 --check-until 7

    sdvar sample --decoder handoff --entry 6 --stats run.json
    """
    start = time.perf_counter()
    wanted = DecoderOptions(
        decoder=decoder,
        gamma=gamma,
        accept=accept,
        accept_top_k=accept_top_k,
        match_top1=match_top1,
        threshold=threshold,
        commit=commit,
        bonus=bonus,
        recycle=recycle or None,
        refine=refine,
        check_until=check_until,
        progress=progress,
        self_draft=self_draft or None,
        trace=None if trace is None else True,
        entry=entry,
        order=order,
        mask=mask,
    )
    if strip is not None and more_smooth:
        raise SdvarError(
            "--strip draws what the tokens stand for, and --more-smooth mixes other codebook "
            "entries in; leave one of them"
        )

    from sdvar_jax.cli.job import Job
    from sdvar_jax.loading import find_models

    settings = SamplingOptions(
        cfg=cfg,
        top_k=top_k,
        top_p=top_p,
        more_smooth=more_smooth or None,
        guidance_schedule=guidance_schedule,
        guidance_until=guidance_until,
    )
    chosen = wanted.build(draft_named=draft is not None)
    files = find_models(model, draft=draft, vqvae=vqvae)
    if not chosen.needs_draft:
        files = files.without_draft()
    names = files.class_names
    classes = parse_labels(labels, names) if labels else default_labels(names)
    numbers = [number for number in classes for _ in range(count)]
    job = Job(
        files=files,
        decoder=chosen,
        sampling=settings.build(files.default_sampling),
        seed=seed,
        samples=len(numbers),
        batch_size=batch_size,
        dtype=str(dtype),
        kernels=str(kernels),
        weights=str(weights),
        devices=devices,
        threshold=threshold,
    )
    job.check()
    check_outputs(
        {"--out": out, "--tokens": tokens, "--stats": stats, "--trace": trace, "--strip": strip},
        singles,
    )

    loaded = job.load(shown=not quiet, ahead={})
    pipeline = loaded.pipeline
    result = job.run(lambda settled: pipeline.sample(numbers, **settled), shown=not quiet)

    from sdvar_jax.cli.report import Report
    from sdvar_jax.cli.strips import run_strip
    from sdvar_jax.imaging import image_grid, save_png

    captions = [job.caption(number) for number in numbers]
    metadata = {"sdvar": json.dumps(job.settings())}
    grid = image_grid(result.images, captions, columns=count if 1 < count <= _WIDEST else None)
    save_png(grid, out, metadata)
    if singles is not None:
        write_singles(singles, result.images, captions, metadata)
    if tokens is not None:
        write_arrays(tokens, token_arrays(result.tokens, result.labels))
    if trace is not None:
        write_arrays(trace, trace_arrays(result))
    if strip is not None:
        save_png(run_strip(pipeline, result, chosen), strip, metadata)
    report = Report(
        command="sample",
        job=job,
        result=result,
        seconds=time.perf_counter() - start,
        loaded=loaded,
    )
    if stats is not None:
        write_json(stats, report.to_dict())
    if not quiet:
        show_table(report.table_rows())
    for path in (out, singles, tokens, trace, strip, stats):
        if path is not None:
            say(f"wrote {path}")
