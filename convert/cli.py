"""The commands ``convert`` and ``export``, for ``sdvar`` and for ``python -m convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from convert.configure import Overrides, parse_pyramid
from convert.to_flax import KEEP, convert
from convert.to_torch import export, stored_dtype
from sdvar_jax.checkpoint.info import INT8, PARTS
from sdvar_jax.errors import SdvarError
from sdvar_jax.runtime.signals import sigterm_as_exit


def convert_command(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Weights: .pth or .safetensors files with a VAR, a VQVAE or both."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint directory to make.")],
    draft: Annotated[
        Path | None, typer.Option(help="Weights of a smaller VAR for speculative decoding.")
    ] = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the weights stored: keep, float32, bfloat16, float16, or int8 (with --storage "
            "safetensors): the VAR's matrices in 8 bits, half of bfloat16, and the rest in "
            "bfloat16."
        ),
    ] = KEEP,
    part: Annotated[
        list[str] | None,
        typer.Option(help="Take only var, vqvae or draft; may be given several times."),
    ] = None,
    heads: Annotated[
        int | None, typer.Option(help="Attention heads, where no tensor tells them.")
    ] = None,
    pyramid: Annotated[
        str | None,
        typer.Option(help="256, 512 or sides as in 1-2-3-4, where no tensor tells them."),
    ] = None,
    residual_ratio: Annotated[
        float | None, typer.Option(help="Share of the quantizer's convolutions, 0.5 if not given.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Place of the models in the files, if there are several.")
    ] = None,
    class_names: Annotated[
        Path | None, typer.Option(help="Text file with the name of each class, one a line.")
    ] = None,
    storage: Annotated[
        str, typer.Option(help="orbax, or safetensors for one file a model.")
    ] = "orbax",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint that is already there.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Convert PyTorch weights to a Flax checkpoint."""
    with sigterm_as_exit():
        report = convert(
            sources,
            output,
            draft=draft,
            parts=tuple(part) if part else PARTS,
            dtype=dtype,
            overrides=Overrides(
                heads=heads,
                pyramid=None if pyramid is None else parse_pyramid(pyramid),
                residual_ratio=residual_ratio,
            ),
            prefix=prefix,
            class_names=None if class_names is None else _lines(class_names),
            storage=storage,
            overwrite=overwrite,
            show_progress=not quiet,
        )
    console = Console(soft_wrap=True, highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False)
    for name, held in report.info.parts.items():
        console.print(
            f"{name}: {held.parameters / 1e6:.1f} M parameters, {held.dtype}", markup=False
        )
    console.print(f"wrote {output}", markup=False)


def export_command(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint directory or name of a model.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write: .safetensors, .pth or .pt.")
    ],
    part: Annotated[str | None, typer.Option(help="var, vqvae or draft.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Export a model of a checkpoint as a PyTorch state dict."""
    with sigterm_as_exit():
        written = export(checkpoint, output, part, show_progress=not quiet)
    console = Console(soft_wrap=True, highlight=False)
    if stored_dtype(checkpoint, part) == INT8:
        console.print(
            "note: the model is stored in int8; its matrices are exported as rounded, in floats, "
            "not bit for bit as they were before",
            markup=False,
        )
    console.print(f"wrote {written} tensors to {output}", markup=False)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SdvarError(f"cannot read the class names in {path}: {error}") from error
