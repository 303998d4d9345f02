"""Compares decoders in pictures: the same seed and classes, one decoder a row.

    python examples/compare_decoders.py
    python examples/compare_decoders.py 207 "red fox" --model checkpoints/d30 --gamma 9 \
        --decoders target match handoff

At the left of each row stand the forwards of the target that a picture took on average, and the
share of the tokens that differ from the target's own. Pictures are made one by one: in a batch they
would wait for each other. Runs on a CPU; each kind of decoder is compiled once and kept in the
compilation cache.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import sdvar_jax as sdvar
from sdvar_jax.errors import errors_in_one_line
from sdvar_jax.labels import short_name

DECODERS = ("target", "draft", "exact", "match", "check-until", "handoff")


class Row(NamedTuple):
    """One way of making the pictures; ``threshold`` is the dial of its acceptance rule."""

    name: str
    decoder: sdvar.Decoder
    threshold: float | None = None


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "labels", nargs="*", help="classes by number, range or name; default: six, evenly spread"
    )
    parser.add_argument("--model", default="emoji", help="checkpoint directory or name")
    parser.add_argument(
        "--draft", help="checkpoint of the small model; default: the one in --model"
    )
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16")
    parser.add_argument(
        "--decoders",
        nargs="+",
        default=DECODERS,
        choices=DECODERS,
        metavar="NAME",
        help=f"the rows, of {', '.join(DECODERS)}; default: all",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every row")
    parser.add_argument(
        "--gamma", type=int, default=3, help="scales to draft before each check (default 3)"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="share of tokens for match (default 0.5)"
    )
    parser.add_argument(
        "--until",
        type=int,
        metavar="K",
        help="scales that check-until checks and that handoff's target makes; the draft makes the "
        "rest unchecked; default: all but the last three",
    )
    parser.add_argument("--out", type=Path, default=Path("decoders.png"))
    return parser.parse_args()


def rows_of(args: argparse.Namespace, num_scales: int) -> list[Row]:
    """What was asked for, in its order."""
    until = max(1, num_scales - 3) if args.until is None else args.until
    gamma = min(args.gamma, num_scales)
    # With a threshold of 1 match is the exact rule, and one program serves both rows.
    match = sdvar.Speculative(gamma=gamma, accept=sdvar.acceptance_rule("match"))
    checked = sdvar.Speculative(gamma=gamma, check_until=until)
    rows = {
        "target": Row("target", sdvar.TargetOnly()),
        "draft": Row("draft", sdvar.DraftOnly()),
        "exact": Row("speculative, exact", match, 1.0),
        "match": Row(f"speculative, match {args.threshold:g}", match, args.threshold),
        "check-until": Row(f"exact until scale {until}, then draft", checked),
        "handoff": Row(f"target until scale {until}, then draft", sdvar.Handoff(until)),
    }
    return [rows[name] for name in args.decoders]


def target_calls(row: Row, result: sdvar.SampleResult, num_scales: int) -> float:
    """Forwards of the target a picture."""
    if result.statistics is not None:
        return result.statistics.target_calls_per_batch
    if isinstance(row.decoder, sdvar.Handoff):
        return row.decoder.entry
    return 0 if isinstance(row.decoder, sdvar.DraftOnly) else num_scales


def main() -> None:
    """Makes the pictures, and one sheet of them."""
    args = arguments()
    sdvar.enable_compilation_cache()
    files = sdvar.find_models(args.model, draft=args.draft)
    names, num_scales = files.class_names, files.target.config.pyramid.num_scales
    spread = [str(index * len(names) // 6) for index in range(min(6, len(names)))]
    labels = [
        label for text in args.labels or spread for label in sdvar.resolve_labels(text, names)
    ]
    rows = rows_of(args, num_scales)
    if files.draft is None and any(row.decoder.needs_draft for row in rows):
        raise sdvar.SdvarError(f"{args.model} holds no draft; name one with --draft")
    pipeline = files.load(sdvar.choose_dtypes(args.dtype))
    pipeline.check_labels(labels)
    for row in rows:  # all are refused before any is compiled
        pipeline.prepare(row.decoder, pipeline.default_sampling, row.threshold)

    common: dict[str, Any] = {"seed": args.seed, "batch_size": 1, "measure": True}
    own = pipeline.sample(labels, **common)
    images, told = [], []
    for row in rows:
        result = own
        if not isinstance(row.decoder, sdvar.TargetOnly):
            result = pipeline.sample(labels, decoder=row.decoder, threshold=row.threshold, **common)
        pairs = zip(result.tokens, own.tokens, strict=True)
        differing = np.mean(np.concatenate([ours != target for ours, target in pairs], axis=1))
        calls = target_calls(row, result, num_scales)
        images.append(result.images)
        told.append(
            f"{row.name}\n{calls:.3g} of {num_scales} target calls\n"
            f"{100 * differing:.1f} % of tokens differ"
        )
        print("; ".join(told[-1].splitlines()), flush=True)
    captions = [f"{label} {short_name(label, names)}" for label in labels]
    sdvar.save_png(sdvar.comparison_grid(np.stack(images), told, captions), args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    with errors_in_one_line():
        main()
