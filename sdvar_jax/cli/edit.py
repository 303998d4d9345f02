"""``sdvar edit``: in-painting, out-painting and class-conditional editing of a picture."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sdvar_jax.cli.choices import DecoderName, DType, Kernels, Weights
from sdvar_jax.cli.decoders import DecoderOptions
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
    write_arrays,
    write_json,
    write_singles,
)
from sdvar_jax.cli.sampling import SamplingOptions
from sdvar_jax.cli.terminal import say, show_table
from sdvar_jax.errors import SdvarError

if TYPE_CHECKING:
    import numpy as np

    from sdvar_jax.editing import Frame

REGION, DECODING = "What is made anew (one of these)", "Decoding"

_SHOWN_MASK = 0.5


def edit(
    image: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGE",
            help="Picture to edit. It is resized and cropped to the model's square.",
        ),
    ],
    box: Annotated[
        str | None,
        typer.Option(
            "--box",
            metavar="LEFT,TOP,RIGHT,BOTTOM",
            help="A rectangle of the square picture, in pixels or per cent (25%,25%,75%,75%).",
            rich_help_panel=REGION,
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask",
            metavar="FILE",
            help="The white parts of this picture, resized and cropped as IMAGE is.",
            rich_help_panel=REGION,
        ),
    ] = None,
    zoom: Annotated[
        float | None,
        typer.Option(
            "--zoom",
            metavar="Z",
            help="What lies around the picture, in a frame Z times as large; with --shift if you "
            "like.",
            rich_help_panel=REGION,
        ),
    ] = None,
    shift: Annotated[
        str | None,
        typer.Option(
            "--shift",
            metavar="X,Y",
            help="What lies beside the picture, moved right and down by these shares of the frame "
            "(0.25,0).",
            rich_help_panel=REGION,
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    draft: DraftOption = None,
    vqvae: VqvaeOption = None,
    dtype: DTypeOption = DType.AUTO,
    kernels: KernelsOption = Kernels.AUTO,
    weights: WeightsOption = Weights.FLOAT,
    label: Annotated[
        str | None,
        typer.Option(
            "--label",
            "-l",
            metavar="CLASS",
            help="Class of what is made, by number or name.",
            show_default="left open",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            "--count", "-n", metavar="N", min=1, help="Variants.", rich_help_panel=SAMPLING
        ),
    ] = 4,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance",
            metavar="SHARE",
            help="Keep a token if at most this share of its cell is made anew. 0 carries nothing "
            "over from there; 0.5 keeps more of the overall colours.",
            rich_help_panel=SAMPLING,
        ),
    ] = 0.0,
    seed: SeedOption = 0,
    cfg: CfgOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    guidance_schedule: GuidanceScheduleOption = None,
    batch_size: BatchSizeOption = 16,
    devices: DevicesOption = 1,
    decoder: Annotated[
        DecoderName | None,
        typer.Option(
            "--decoder",
            "-d",
            metavar="DECODER",
            help="target, draft, speculative or handoff; see `sdvar sample --help`.",
            show_default="speculative if --draft is given, else target",
            rich_help_panel=DECODING,
        ),
    ] = None,
    gamma: Annotated[
        str | None,
        typer.Option(
            "--gamma",
            metavar="GAMMA",
            help="Scales to draft before each check (speculative).",
            show_default="3",
            rich_help_panel=DECODING,
        ),
    ] = None,
    entry: Annotated[
        int | None,
        typer.Option(
            "--entry",
            metavar="N",
            min=0,
            help="Scales that the first model makes (handoff).",
            rich_help_panel=DECODING,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.png",
            help="Write the picture, what of it is made anew, and the variants as one grid.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("edit.png"),
    feather: Annotated[
        int,
        typer.Option(
            "--feather",
            metavar="PIXELS",
            min=0,
            help="Blend old into new over this width.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
    keep_pixels: Annotated[
        bool,
        typer.Option(
            "--keep-pixels/--raw",
            help="Put the picture's own pixels back outside what is made anew, or show what the "
            "VQVAE makes of them.",
            rich_help_panel=OUTPUT,
        ),
    ] = True,
    singles: SinglesOption = None,
    tokens: TokensOption = None,
    stats: StatsOption = None,
    quiet: QuietOption = False,
) -> None:
    """Fill, extend or change a part of a picture.

    The picture's own tokens are kept outside the part; the model makes those inside.

    In-painting: sdvar edit photo.png --box 25%,25%,75%,75%

    Out-painting: sdvar edit photo.png --zoom 1.5

    Another class in a box: sdvar edit photo.png --box 25%,25%,75%,75% --label "red fox"
    """
    start = time.perf_counter()
    wanted = DecoderOptions(decoder=decoder, gamma=gamma, entry=entry)
    chosen_regions = [
        option
        for option, given in (
            ("--box", box is not None),
            ("--mask", mask is not None),
            ("--zoom/--shift", zoom is not None or shift is not None),
        )
        if given
    ]
    if len(chosen_regions) != 1:
        raise SdvarError(
            "say what is to be made anew with one of --box, --mask and --zoom/--shift; got "
            + (" and ".join(chosen_regions) or "none")
        )

    import numpy as np

    from sdvar_jax.cli.job import Job
    from sdvar_jax.editing import edit_image, kept_tokens
    from sdvar_jax.imaging import image_grid, load_image, save_png
    from sdvar_jax.labels import resolve_label
    from sdvar_jax.loading import find_models

    settings = SamplingOptions(
        cfg=cfg, top_k=top_k, top_p=top_p, guidance_schedule=guidance_schedule
    )
    chosen = wanted.build(draft_named=draft is not None)
    files = find_models(model, draft=draft, vqvae=vqvae)
    if not chosen.needs_draft:
        files = files.without_draft()
    number = None if label is None else resolve_label(label, files.class_names)
    job = Job(
        files=files,
        decoder=chosen,
        sampling=settings.build(files.default_sampling),
        seed=seed,
        samples=count,
        batch_size=batch_size,
        dtype=str(dtype),
        kernels=str(kernels),
        weights=str(weights),
        devices=devices,
    )
    job.check()
    side = files.vqvae.config.image_side
    frame = _frame(load_image(image, side), box=box, mask=mask, zoom=zoom, shift=shift)
    kept_tokens(frame.mask, files.target.config.pyramid, tolerance)
    check_outputs({"--out": out, "--tokens": tokens, "--stats": stats}, singles)

    loaded = job.load(shown=not quiet, ahead={"forced": True})
    pipeline = loaded.pipeline
    result = job.run(
        lambda settled: edit_image(
            pipeline,
            frame.image,
            frame.mask,
            label=number,
            count=count,
            tolerance=tolerance,
            keep_pixels=keep_pixels,
            feather=feather,
            **settled,
        ),
        shown=not quiet,
    )

    from sdvar_jax.cli.report import Report

    metadata = {"sdvar": json.dumps(job.settings())}
    class_name = "any class" if number is None else job.caption(number)
    captions = [f"{class_name}, {variant + 1}" for variant in range(count)]
    faded = np.where(frame.mask[..., None], _SHOWN_MASK * (frame.image + 1), frame.image)
    shown = np.concatenate([frame.image[None], faded[None], result.images])
    save_png(image_grid(shown, [image.name, "made anew", *captions]), out, metadata)
    if singles is not None:
        write_singles(singles, result.images, captions, metadata)
    if tokens is not None:
        write_arrays(tokens, token_arrays(result.sampled.tokens, result.sampled.labels))
    report = Report(
        command="edit",
        job=job,
        result=result.sampled,
        seconds=time.perf_counter() - start,
        loaded=loaded,
    )
    if stats is not None:
        kept = {"kept_tokens": int(result.kept.sum()), "all_tokens": int(result.kept.size)}
        write_json(stats, {**report.to_dict(), "edit": kept})
    if not quiet:
        show_table(
            [("tokens kept", f"{result.kept.sum()} of {result.kept.size}"), *report.table_rows()]
        )
    for path in (out, singles, tokens, stats):
        if path is not None:
            say(f"wrote {path}")


def _frame(
    picture: np.ndarray,
    *,
    box: str | None,
    mask: Path | None,
    zoom: float | None,
    shift: str | None,
) -> Frame:
    """The picture as it is edited, and the part that is made anew."""
    from sdvar_jax.editing import Box, Frame, mask_of_image, place_in_frame
    from sdvar_jax.imaging import load_image

    side = picture.shape[0]
    if box is not None:
        return Frame(image=picture, mask=Box.parse(box, side).mask(side))
    if mask is not None:
        return Frame(image=picture, mask=mask_of_image(load_image(mask, side)))
    return place_in_frame(
        picture, 1.0 if zoom is None else zoom, (0.0, 0.0) if shift is None else _shares(shift)
    )


def _shares(text: str) -> tuple[float, float]:
    """``--shift`` as two numbers."""
    try:
        right, down = (float(item) for item in text.split(","))
    except ValueError:
        raise SdvarError(
            f"--shift is two shares of the frame such as 0.25,0; got {text!r}"
        ) from None
    return right, down
