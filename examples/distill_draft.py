"""Distils a draft: a small VAR that draws what a checkpoint's target draws.

    python examples/distill_draft.py --model checkpoints/d30 --data pictures --output pair --depth 4
    python examples/distill_draft.py --data emoji64.sdvar --output pair --minutes 5

The first makes a new draft of four blocks; the second goes on with the draft that the checkpoint
has. The data is a prepared set (``sdvar data``) or a directory with one directory of pictures a
class. Tells before and after how often the draft draws the target's token, and its whole token map,
under the same noise; the latter is what exact speculative decoding accepts. The output holds the
target, the VQVAE and the draft: ``sdvar sample --model pair --decoder speculative``.

``sdvar train distill`` has more settings, and measures on held-out pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

import sdvar_jax as sdvar
from sdvar_jax.checkpoint.info import INFO_FILE
from sdvar_jax.data import load_dataset
from sdvar_jax.errors import errors_in_one_line
from sdvar_jax.runtime.atomic import check_directory_destination
from sdvar_jax.training import DistillConfig, OptimizerConfig, RunConfig, distill


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="emoji", help="checkpoint with the target and its VQVAE")
    parser.add_argument("--data", type=Path, required=True, help="prepared set, or directory")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint directory to make")
    parser.add_argument(
        "--depth", type=int, help="blocks of a new draft; default: go on with the one in --model"
    )
    parser.add_argument(
        "--heads", type=int, help="attention heads of a new draft; default: half the target's"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="length of the training (default 1000)")
    length.add_argument("--minutes", type=float, help="the same by the clock, all included")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--own-samples", type=int, default=1024, help="pictures of the target's own to learn from"
    )
    parser.add_argument(
        "--measured", type=int, default=128, help="pictures that agreement is measured on"
    )
    parser.add_argument("--dtype", default="auto", help="of the arithmetic; weights are float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier output")
    parser.add_argument("--stats", type=Path, help="write agreement before and after as .json")
    return parser.parse_args()


def new_draft(target: sdvar.VARConfig, depth: int, heads: int | None, seed: int) -> sdvar.VAR:
    """A small VAR of the target's scales, vocabulary and classes, with random weights."""
    heads = max(1, target.heads // 2) if heads is None else heads
    config = dataclasses.replace(
        target, depth=depth, heads=heads, width=heads * target.head_dim, drop_path_rate=0.0
    )
    return sdvar.VAR(config, rngs=nnx.Rngs(seed))


def settings(args: argparse.Namespace, sampling: sdvar.SamplingConfig) -> DistillConfig:
    """Of the training."""
    steps = 1000 if args.steps is None and args.minutes is None else args.steps
    return DistillConfig(
        run=RunConfig(
            batch_size=args.batch_size,
            steps=steps,
            minutes=args.minutes,
            seed=args.seed,
            ema_decay=0.99,
            compute=sdvar.choose_dtypes(args.dtype).compute,
        ),
        optimizer=OptimizerConfig(learning_rate=args.learning_rate, weight_decay=0.0),
        sampling=sampling,
        own_samples=args.own_samples,
        sample_batch=min(64, args.own_samples),
        measured=args.measured,
        scale_power=0.5,  # else the largest scales, which hold most tokens, would be all it learns
    )


def told(agreement: Mapping[str, Any]) -> str:
    """Agreement in words."""
    first = ", ".join(f"{100 * share:.0f} %" for share in agreement["scales_by_scale"][:4])
    return (
        f"{100 * agreement['tokens']:.1f} % of tokens, {100 * agreement['scales']:.1f} % of whole "
        f"scales (the first ones: {first})"
    )


def main() -> None:
    """Distils, and writes the checkpoint."""
    args = arguments()
    sdvar.enable_compilation_cache()
    files = sdvar.find_models(args.model)
    if files.draft is None and args.depth is None:
        raise sdvar.SdvarError(f"{args.model} holds no draft to go on with; make one with --depth")
    check_directory_destination(args.output, overwrite=args.overwrite, marker=INFO_FILE)
    config = settings(args, files.default_sampling)
    target, vqvae = files.target.load(config.run.dtypes), files.vqvae.load(config.run.dtypes)
    if args.depth is None:
        draft = files.draft.load(config.run.dtypes)
    else:
        draft = new_draft(target.config, args.depth, args.heads, args.seed)
    pictures = load_dataset(args.data, "train", size=vqvae.config.image_side)

    made = distill(pictures, vqvae, target, draft, config)
    print("before:", told(made.before))
    print("after: ", told(made.after))
    sdvar.save_checkpoint(
        args.output,
        var=files.target.weights(),
        vqvae=files.vqvae.weights(),
        draft=made.model,
        class_names=files.class_names,
        sampling=files.sampling,
        storage="safetensors",
        overwrite=args.overwrite,
    )
    if args.stats is not None:
        agreement = {"before": dict(made.before), "after": dict(made.after)}
        args.stats.write_text(json.dumps(agreement, indent=1) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    with errors_in_one_line():
        main()
