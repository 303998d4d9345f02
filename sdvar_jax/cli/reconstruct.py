"""``sdvar reconstruct``: pictures to tokens and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sdvar_jax.cli.choices import DType
from sdvar_jax.cli.options import (
    DEFAULT_MODEL,
    OUTPUT,
    BatchSizeOption,
    DTypeOption,
    ModelOption,
    QuietOption,
    SinglesOption,
    StatsOption,
    TokensOption,
)
from sdvar_jax.cli.outputs import (
    check_outputs,
    token_arrays,
    write_arrays,
    write_json,
    write_singles,
)
from sdvar_jax.cli.terminal import picture_progress, say


def reconstruct(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...",
            help="Picture files. Each is resized and cropped to the model's square.",
        ),
    ],
    model: ModelOption = DEFAULT_MODEL,
    dtype: DTypeOption = DType.AUTO,
    batch_size: BatchSizeOption = 8,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE.png",
            help="Write each picture beside its reconstruction.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("reconstruction.png"),
    singles: SinglesOption = None,
    tokens: TokensOption = None,
    stats: StatsOption = None,
    strip: Annotated[
        Path | None,
        typer.Option(
            "--strip",
            metavar="FILE.png",
            help="Draw the first reconstruction as it stands after each scale.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Turn pictures into tokens and back, and tell what is lost.

    The loss is told as peak signal-to-noise ratio (PSNR) in dB; higher is better. It bounds what a
    VAR on the same VQVAE can draw.
    """
    import numpy as np

    from sdvar_jax.image_tokenizer import ImageTokenizer
    from sdvar_jax.imaging import image_grid, load_image, save_png, scale_strip
    from sdvar_jax.loading import choose_dtypes, find_vqvae
    from sdvar_jax.runtime.compilation_cache import enable_compilation_cache

    part = find_vqvae(model)
    side = part.config.image_side
    originals = np.stack([load_image(path, side) for path in images])  # [n, side, side, 3]
    check_outputs({"--out": out, "--tokens": tokens, "--stats": stats, "--strip": strip}, singles)

    enable_compilation_cache()
    tokenizer = ImageTokenizer(part.load(choose_dtypes(str(dtype))), batch_size)
    with picture_progress("reconstructing", len(images), shown=not quiet) as advance:
        made = tokenizer.reconstruct(originals)
        advance(len(images))

    names = [path.name for path in images]
    captions = [f"{name}: {ratio:.1f} dB" for name, ratio in zip(names, made.psnr, strict=True)]
    pairs = np.stack([originals, made.images], axis=1).reshape(-1, side, side, 3)
    pair_captions = [text for pair in zip(names, captions, strict=True) for text in pair]
    # Two pairs a row from the third pair on.
    save_png(image_grid(pairs, pair_captions, columns=2 if len(images) < 3 else 4), out)
    if singles is not None:
        write_singles(singles, made.images, [path.stem for path in images])
    if tokens is not None:
        # A picture from outside has no class.
        write_arrays(tokens, token_arrays(made.tokens, np.full(len(images), -1)))
    if strip is not None:
        steps = tokenizer.decode_each_scale(tuple(each[:1] for each in made.tokens))[:, 0]
        sides = part.config.pyramid.sides
        save_png(scale_strip(steps, [f"{i + 1}: {n}x{n}" for i, n in enumerate(sides)]), strip)
    if stats is not None:
        write_json(stats, _statistics(part.directory, names, made.psnr))
    for caption in captions:
        say(caption)
    if len(images) > 1:
        say(f"mean: {np.mean(made.psnr):.1f} dB")
    for path in (out, singles, tokens, strip, stats):
        if path is not None:
            say(f"wrote {path}")


def _statistics(checkpoint: Path, names: list[str], ratios: object) -> dict[str, object]:
    """What ``--stats`` writes."""
    import numpy as np

    from sdvar_jax.cli.report import device, versions

    values = [float(ratio) for ratio in np.asarray(ratios)]
    return {
        "command": "reconstruct",
        "versions": versions(),
        "device": device(),
        "checkpoint": str(checkpoint),
        # Equal pictures have no finite ratio, and JSON has no infinity.
        "psnr_db": {
            name: value if np.isfinite(value) else None
            for name, value in zip(names, values, strict=True)
        },
    }
