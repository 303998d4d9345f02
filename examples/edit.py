"""Fills, extends and changes a picture through the public API.

    python examples/edit.py photo.png --model checkpoints/d30 --label "red fox"

Writes one grid: the picture, its middle filled in, its middle as another class, and what lies
around it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

import sdvar_jax as sdvar
from sdvar_jax.errors import errors_in_one_line


def main() -> None:
    """Makes the three kinds of edit."""
    parser = argparse.ArgumentParser(description="Edit a picture in three ways.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", default="emoji", help="checkpoint directory or name")
    parser.add_argument("--label", default="0", help="class to put into the middle")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("edit.png"))
    args = parser.parse_args()

    sdvar.enable_compilation_cache()
    files = sdvar.find_models(args.model).without_draft()
    (label,) = sdvar.resolve_labels(args.label, files.class_names)
    side = files.vqvae.config.image_side
    picture = sdvar.load_image(args.image, side)
    pipeline = files.load(sdvar.choose_dtypes(args.dtype))

    middle = sdvar.Box.parse("25%,25%,75%,75%", side)
    edits = {
        "filled in": sdvar.inpaint(pipeline, picture, middle, seed=args.seed),
        f"class {label}": sdvar.edit_class(pipeline, picture, label, middle, seed=args.seed),
        "extended": sdvar.outpaint(pipeline, picture, zoom=1.5, seed=args.seed),
    }
    images = np.concatenate([picture[None], *(edit.images for edit in edits.values())])
    sdvar.save_png(sdvar.image_grid(images, [args.image.name, *edits], columns=4), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    with errors_in_one_line():
        main()
