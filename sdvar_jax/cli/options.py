"""Options that several commands share: one place for their names, ranges and help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdvar_jax.cli.choices import DType, GuidanceSchedule, Kernels, Weights
from sdvar_jax.sampling.config import SamplingConfig

MODELS, SAMPLING, OUTPUT = "Models", "Sampling", "Output"

MAX_SEED = 2**32 - 1
DEFAULT_MODEL = "emoji"

_PACKAGE = SamplingConfig()


def _else(value: object) -> str:
    """What the help says of a default that a checkpoint may name."""
    return f"the checkpoint's, else {value}"


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="What to sample from: a checkpoint directory, the name of a model that comes with "
        "sdvar, or hf:OWNER/NAME.",
        rich_help_panel=MODELS,
    ),
]
DraftOption = Annotated[
    str | None,
    typer.Option(
        "--draft",
        metavar="MODEL",
        help="The small model that drafts.",
        show_default="the draft in --model",
        rich_help_panel=MODELS,
    ),
]
VqvaeOption = Annotated[
    str | None,
    typer.Option(
        "--vqvae",
        metavar="MODEL",
        help="The VQVAE, which turns tokens into pictures.",
        show_default="the one in --model",
        rich_help_panel=MODELS,
    ),
]
DTypeOption = Annotated[
    DType,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Of weights and arithmetic: float32, bfloat16, float16, or auto: bfloat16 on a GPU "
        "or TPU, float32 on a CPU.",
        rich_help_panel=MODELS,
    ),
]
KernelsOption = Annotated[
    Kernels,
    typer.Option(
        "--kernels",
        metavar="KERNELS",
        help="What runs the transformers. fused: kernels for NVIDIA GPUs, in bfloat16 or float16; "
        "reference: plain JAX, anywhere; scanned: the same in a loop over the blocks, quicker to "
        "compile; auto takes fused where it can run, and scanned for small models on a CPU.",
        rich_help_panel=MODELS,
    ),
]
WeightsOption = Annotated[
    Weights,
    typer.Option(
        "--weights",
        metavar="WEIGHTS",
        help="What the matrices of the transformers' blocks are held in. float: in --dtype; int8: "
        "rounded to eight bits as they are loaded, half the memory of bfloat16, no faster on the "
        "GPUs tried; pictures change a little.",
        rich_help_panel=MODELS,
    ),
]
SeedOption = Annotated[
    int,
    typer.Option(
        "--seed",
        "-s",
        metavar="N",
        min=0,
        max=MAX_SEED,
        help="The same seed and labels give the same pictures, whatever the batch size.",
        rich_help_panel=SAMPLING,
    ),
]
CfgOption = Annotated[
    float | None,
    typer.Option(
        "--cfg",
        metavar="T",
        min=0.0,
        help="Strength of guidance: higher follows the class more and varies less; 0 turns it off "
        "and takes half the arithmetic.",
        show_default=_else(_PACKAGE.cfg),
        rich_help_panel=SAMPLING,
    ),
]
TopKOption = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        metavar="K",
        min=0,
        help="Draw from the K most likely tokens only; 0 takes all.",
        show_default=_else(_PACKAGE.top_k),
        rich_help_panel=SAMPLING,
    ),
]
TopPOption = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        metavar="P",
        min=0.0,
        max=1.0,
        help="Draw from the most likely tokens that make up this probability; 0 takes all.",
        show_default=_else(_PACKAGE.top_p),
        rich_help_panel=SAMPLING,
    ),
]
GuidanceScheduleOption = Annotated[
    GuidanceSchedule | None,
    typer.Option(
        "--guidance-schedule",
        metavar="SCHEDULE",
        help="linear grows from 0 at the first scale to --cfg at the last, constant does not.",
        show_default=_else(_PACKAGE.guidance_schedule),
        rich_help_panel=SAMPLING,
    ),
]
GuidanceUntilOption = Annotated[
    int | None,
    typer.Option(
        "--guidance-until",
        metavar="N",
        min=0,
        help="Guide the first N scales only; the rest take half the arithmetic.",
        show_default=_else("all"),
        rich_help_panel=SAMPLING,
    ),
]
BatchSizeOption = Annotated[
    int,
    typer.Option(
        "--batch-size",
        "-b",
        metavar="N",
        min=1,
        help="Pictures made at once; fewer take less memory.",
        rich_help_panel=SAMPLING,
    ),
]
DevicesOption = Annotated[
    int,
    typer.Option(
        "--devices",
        metavar="N",
        min=1,
        help="GPUs or TPUs to spread each batch over; every one holds the models.",
        rich_help_panel=SAMPLING,
    ),
]
SinglesOption = Annotated[
    Path | None,
    typer.Option(
        "--singles",
        metavar="DIR",
        help="Write each picture as a PNG into this directory.",
        rich_help_panel=OUTPUT,
    ),
]
TokensOption = Annotated[
    Path | None,
    typer.Option(
        "--tokens",
        metavar="FILE.npz",
        help="Write the tokens: int32, one array a scale (scale_00, ...), and the labels.",
        rich_help_panel=OUTPUT,
    ),
]
StatsOption = Annotated[
    Path | None,
    typer.Option(
        "--stats",
        metavar="FILE.json",
        help="Write settings, versions, device, times, peak memory and counts.",
        rich_help_panel=OUTPUT,
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet",
        "-q",
        help="Show no progress and no table.",
        rich_help_panel=OUTPUT,
    ),
]
