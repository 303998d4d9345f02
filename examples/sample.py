"""Makes pictures through the public API, on a CPU, GPU or TPU.

    python examples/sample.py 207 "red fox" --model checkpoints/d30
    python examples/sample.py --model checkpoints/d30 --draft checkpoints/d16 --gamma 3

``sdvar sample`` offers more and checks more; this shows how little code it takes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import sdvar_jax as sdvar
from sdvar_jax.errors import errors_in_one_line
from sdvar_jax.labels import short_name


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make pictures of classes.")
    parser.add_argument("labels", nargs="*", default=["0-7"], help="numbers, ranges or names")
    parser.add_argument("--model", default="emoji", help="checkpoint directory or name")
    parser.add_argument("--draft", help="checkpoint of the small model")
    parser.add_argument("--vqvae", help="checkpoint of the VQVAE, if not in --model")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument("--count", type=int, default=1, help="pictures a class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cfg", type=float, help="guidance; default: the checkpoint's")
    parser.add_argument("--top-k", type=int, help="default: the checkpoint's")
    parser.add_argument("--top-p", type=float, help="default: the checkpoint's")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--decoder", default="target", choices=("target", "draft", "speculative", "handoff")
    )
    parser.add_argument("--gamma", type=int, default=3, help="scales to draft before each check")
    parser.add_argument("--accept", default="exact", help="exact, residual, match, topk or kl")
    parser.add_argument("--threshold", type=float, help="dial of match, topk and kl")
    parser.add_argument("--commit", default="target", choices=("target", "draft"))
    parser.add_argument("--check-until", type=int, help="check the first K scales only")
    parser.add_argument("--entry", type=int, default=0, help="scales of a handoff's first model")
    parser.add_argument("--order", default="target-draft", help="or draft-target")
    parser.add_argument("--mask", type=int, default=3, help="mask of a handoff, 0 to 5")
    parser.add_argument("--out", type=Path, default=Path("sdvar.png"))
    parser.add_argument("--tokens", type=Path, help="write the tokens as .npz")
    parser.add_argument("--stats", type=Path, help="write times and counts as .json")
    return parser.parse_args()


def decoder_of(args: argparse.Namespace) -> sdvar.Decoder:
    """The decoder that was asked for."""
    if args.decoder == "speculative":
        return sdvar.Speculative(
            gamma=args.gamma,
            accept=sdvar.acceptance_rule(args.accept),
            commit=args.commit,
            check_until=args.check_until,
        )
    if args.decoder == "handoff":
        return sdvar.Handoff(args.entry, args.order, args.mask)
    return sdvar.DraftOnly() if args.decoder == "draft" else sdvar.TargetOnly()


def main() -> None:
    """Samples, and writes a grid."""
    args = arguments()
    cache = sdvar.enable_compilation_cache()
    decoder = decoder_of(args)
    files = sdvar.find_models(args.model, draft=args.draft, vqvae=args.vqvae)
    sampling = files.default_sampling.updated(cfg=args.cfg, top_k=args.top_k, top_p=args.top_p)
    names = files.class_names
    labels = [
        label
        for text in args.labels
        for label in sdvar.resolve_labels(text, names)
        for _ in range(args.count)
    ]
    compiled_in: dict[str, Any] = {
        "sampling": sampling,
        "decoder": decoder,
        "threshold": args.threshold,
        "batch_size": args.batch_size,
        "measure": True,
    }
    pipeline = files.load(
        sdvar.choose_dtypes(args.dtype),
        meanwhile=lambda planned: planned.compile(len(labels), **compiled_in),
        cache=cache,
    )
    result = pipeline.sample(
        labels,
        seed=args.seed,
        **compiled_in,
        progress=lambda done: print(f"{done} of {len(labels)} pictures", flush=True),
    )
    captions = [f"{label} {short_name(label, names)}" for label in labels]
    sdvar.save_png(sdvar.image_grid(result.images, captions), args.out)
    print("seconds:", {phase: round(seconds, 3) for phase, seconds in result.timings.items()})
    counts = {} if result.statistics is None else result.statistics.to_dict()
    if args.tokens is not None:
        arrays: dict[str, Any] = {f"scale_{i:02d}": each for i, each in enumerate(result.tokens)}
        np.savez(args.tokens, **arrays)
    if args.stats is not None:
        told = {"seconds": result.timings, "statistics": counts}
        args.stats.write_text(json.dumps(told) + "\n")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    with errors_in_one_line():
        main()
