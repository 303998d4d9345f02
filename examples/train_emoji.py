"""Trains the emoji pair: a VQVAE, a target VAR, and a draft distilled from the target.

    python examples/train_emoji.py --data emoji64.sdvar --output out

Each stage takes the minutes it is given, compiling and measuring included. A stage of 0 minutes is
left out, and what it would have made is taken from ``--start``, the ``model`` directory of an
earlier call:

    python examples/train_emoji.py --data emoji64.sdvar --output one --minutes-draft 0 \
        --minutes-distill 0
    python examples/train_emoji.py --data emoji64.sdvar --output two --start one/model \
        --minutes-vqvae 0 --minutes-target 0

``--go-on`` trains the target or the draft of ``--start`` further:

    python examples/train_emoji.py --data emoji64.sdvar --output three --start two/model --go-on \
        --minutes-vqvae 0 --minutes-target 8 --minutes-draft 0 --minutes-distill 0

``--scales 8`` trains the target on the first eight scales alone, which hold 255 of the 680 tokens
and decide what a picture shows; a call with ``--go-on`` and without it teaches the rest.

All devices of the machine are used. The output directory gets ``model/`` (a checkpoint that
``sdvar`` loads), ``report.json``, and sheets of reconstructions and samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from sdvar_jax.checkpoint import PartWeights, load_checkpoint, save_checkpoint
from sdvar_jax.checkpoint.info import INT8
from sdvar_jax.config import DTypePolicy, VARConfig
from sdvar_jax.data import load_dataset
from sdvar_jax.imaging import save_png
from sdvar_jax.runtime.compilation_cache import enable_compilation_cache
from sdvar_jax.runtime.directories import ensure_directory
from sdvar_jax.runtime.memory import describe_devices, peak_memory
from sdvar_jax.sampling import SamplingConfig
from sdvar_jax.training import (
    VARTrainingConfig,
    distill,
    tokenize_set,
    train_var,
    train_vqvae,
)
from sdvar_jax.training.pictures import all_images, reconstruction_sheet, sample_sheet
from sdvar_jax.training.presets import (
    EMOJI_SAMPLING,
    emoji_distillation,
    emoji_draft_training,
    emoji_target_training,
    emoji_vqvae_training,
)

STAGES = ("vqvae", "target", "draft", "distill")
STORED = ("bfloat16", INT8)
REPORT = "report.json"
SAMPLE_BATCH = 144


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="prepared emoji set")
    parser.add_argument("--output", type=Path, required=True, help="directory to write to")
    parser.add_argument("--start", type=Path, help="model directory of an earlier call")
    for stage, minutes in zip(STAGES, (3.5, 4.5, 1.5, 1.5), strict=True):
        parser.add_argument(f"--minutes-{stage}", type=float, default=minutes)
    parser.add_argument("--steps", type=int, help="steps of every stage instead of minutes")
    parser.add_argument(
        "--go-on",
        action="store_true",
        help="start target and draft from the weights in --start instead of random ones",
    )
    parser.add_argument(
        "--scales",
        type=int,
        help="train target and draft on the first scales alone; let a run on all of them follow",
    )
    parser.add_argument(
        "--learning-rate", type=float, help="of target and draft, instead of the preset's"
    )
    parser.add_argument(
        "--scale-power",
        type=float,
        help="a scale of n tokens weighs n to this power in the loss of target and draft, the "
        "draft's distillation too, instead of the presets'",
    )
    parser.add_argument(
        "--own-tokens",
        type=float,
        help="largest share of tokens that target and draft draw themselves in the input, instead "
        "of the preset's",
    )
    parser.add_argument("--cfg", type=float, default=EMOJI_SAMPLING.cfg, help="guidance of samples")
    parser.add_argument("--top-k", type=int, default=EMOJI_SAMPLING.top_k)
    parser.add_argument("--top-p", type=float, default=EMOJI_SAMPLING.top_p)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, help="of every stage")
    parser.add_argument("--steps-per-dispatch", type=int, help="of every stage")
    parser.add_argument("--compute", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument(
        "--store",
        default="bfloat16",
        choices=STORED,
        help="dtype of the weights written: int8 halves target and draft (matrices in 8 bits)",
    )
    parser.add_argument("--logs", type=Path, help="directory for metrics and checkpoints of runs")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in logs")
    parser.add_argument("--limit", type=int, help="use this many pictures only")
    parser.add_argument("--columns", type=int, default=8, help="samples of each class in a sheet")
    parser.add_argument("--smoke", action="store_true", help="tiny models, to try the program")
    return parser.parse_args()


class Limited:
    """The first pictures of a set, evenly spread over it."""

    def __init__(self, source: Any, limit: int) -> None:
        self.rows = np.linspace(0, len(source) - 1, min(limit, len(source))).astype(int)
        self.size, self.class_names = source.size, source.class_names
        self.images, self.labels = source.images[self.rows], source.labels[self.rows]
        self.glyphs = tuple(source.glyphs[row] for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return {"image": self.images[index], "label": self.labels[index]}

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures and labels at ``indices``."""
        return self.images[indices], self.labels[indices]


def adjusted(config: Any, args: argparse.Namespace) -> Any:
    """A stage's settings with what the command line changes."""
    run = config.run
    if args.steps:
        run = dataclasses.replace(run, steps=args.steps, minutes=None)
    if args.batch_size:
        run = dataclasses.replace(run, batch_size=args.batch_size)
    if args.steps_per_dispatch:
        run = dataclasses.replace(run, steps_per_dispatch=args.steps_per_dispatch)
    changes: dict[str, Any] = {"run": run}
    if args.scale_power is not None and hasattr(config, "scale_power"):
        changes["scale_power"] = args.scale_power
    if args.smoke and hasattr(config, "model"):
        small = (
            {"channels": 32}
            if hasattr(config.model, "channels")
            else {
                "depth": max(1, config.model.depth // 6),
                "width": 48,
                "heads": 3,
            }
        )
        changes["model"] = dataclasses.replace(config.model, **small)
    if args.smoke and hasattr(config, "own_samples"):
        changes.update(own_samples=8, sample_batch=8, measured=8)
    return dataclasses.replace(config, **changes)


def adjusted_var(config: VARTrainingConfig, args: argparse.Namespace) -> VARTrainingConfig:
    """``adjusted``, and what the command line changes in the training of target and draft alone."""
    changes: dict[str, Any] = {}
    if args.learning_rate:
        changes["optimizer"] = dataclasses.replace(
            config.optimizer, learning_rate=args.learning_rate
        )
    if args.own_tokens is not None:
        changes["token_noise"] = dataclasses.replace(config.token_noise, own_share=args.own_tokens)
    if args.scales is not None:
        changes["scales"] = args.scales
    return dataclasses.replace(adjusted(config, args), **changes)


def stored(model: Any, store: str) -> PartWeights:
    """A model's weights as they are shipped: bfloat16, or a VAR's matrices in int8.

    Models read back from int8 are rounded to the very same numbers again.
    """
    weights = PartWeights.of(model)
    if store == INT8 and isinstance(weights.config, VARConfig):
        return weights.rounded_to_int8(others="bfloat16")
    return weights.cast("bfloat16")


def save(
    models: dict[str, Any],
    output: Path,
    class_names: tuple[str, ...],
    sampling: SamplingConfig,
    compute: str,
) -> Any:
    """Writes all models made so far and reads them back as users will have them."""
    directory = output / "model"
    save_checkpoint(
        directory,
        var=models.get("target"),
        vqvae=models.get("vqvae"),
        draft=models.get("draft"),
        class_names=class_names,
        sampling=sampling,
        storage="safetensors",
        overwrite=directory.exists(),
    )
    return load(directory, compute)


def load(directory: Path, compute: str) -> dict[str, Any]:
    """The models of a directory by their name here, weights in float32."""
    loaded = load_checkpoint(directory, DTypePolicy(param="float32", compute=compute))
    models = {"target": loaded.var, "vqvae": loaded.vqvae, "draft": loaded.draft}
    return {name: model for name, model in models.items() if model is not None}


def told(stage: str, config: Any, fit: Any, minutes: float, **more: Any) -> dict[str, Any]:
    """What the report says of a stage."""
    picked = np.unique(np.linspace(0, len(fit.history["loss"]) - 1, 60).astype(int))
    curves = {
        name: [round(float(values[i]), 5) for i in picked]
        for name, values in fit.history.items()
        if name != "learning_rate"
    }
    return {
        "device": describe_devices(),
        "peak_memory": peak_memory(),
        "minutes": minutes,
        "seconds": fit.seconds,
        "steps": int(fit.state.step),
        "seconds_per_step": fit.seconds_per_step,
        "settings": repr(config),
        "at_steps": [int(i) + 1 for i in picked],
        "curves": curves,
        **more,
    }


def write_report(report: dict[str, Any], output: Path) -> None:
    """Writes ``report.json``, as it is kept for a record."""
    (output / REPORT).write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Runs the stages."""
    args = arguments()
    began = time.monotonic()
    enable_compilation_cache()
    output = ensure_directory(args.output)
    train = load_dataset(args.data, "train", in_memory=True)
    heldout = load_dataset(args.data, "heldout", in_memory=True)
    if args.limit:
        train, heldout = Limited(train, args.limit), Limited(heldout, max(1, args.limit // 8))
    names, classes = train.class_names, len(train.class_names)
    sampling = SamplingConfig(cfg=args.cfg, top_k=args.top_k, top_p=args.top_p)
    sample_batch = 8 if args.smoke else SAMPLE_BATCH
    models = {} if args.start is None else load(args.start, args.compute)
    report: dict[str, Any] = {"stages": {}}
    if args.start is not None and (args.start.parent / REPORT).exists():
        report = json.loads((args.start.parent / REPORT).read_text())
    common = {"seed": args.seed, "compute": args.compute}

    def logs(stage: str) -> dict[str, Any]:
        return {
            "output": None if args.logs is None else ensure_directory(args.logs) / stage,
            "resume": args.resume,
        }

    def sheet(model: Any) -> Any:
        shown = names[:2] if args.smoke else names
        return sample_sheet(
            model, models["vqvae"], shown, sampling, columns=args.columns, batch_size=sample_batch
        )

    def finish(stage: str, started: float, config: Any, fit: Any, **more: Any) -> None:
        minutes = (time.monotonic() - started) / 60
        report["stages"][stage] = told(stage, config, fit, minutes, **more)
        report["parameters"] = {
            name: sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
            for name, model in models.items()
        }
        report["total_minutes"] = (time.monotonic() - began) / 60
        write_report(report, output)
        print(f"{stage}: {minutes:.2f} min, {more}", flush=True)
        # The programs of a stage are of no use to the next, and hold memory.
        jax.clear_caches()
        gc.collect()

    started = time.monotonic()
    if args.minutes_vqvae:
        config = adjusted(emoji_vqvae_training(args.minutes_vqvae, **common), args)
        made = train_vqvae(train, config, heldout=heldout, started=started, **logs("vqvae"))
        models = save(
            {"vqvae": stored(made.model, args.store)}, output, names, sampling, args.compute
        )
        images = all_images(heldout)
        few = images[np.linspace(0, len(images) - 1, min(64, len(images))).astype(int)]
        save_png(reconstruction_sheet(models["vqvae"], few), output / "reconstructions.png")
        finish("vqvae", started, config, made.fit, heldout=dict(made.heldout))

    started = time.monotonic()
    tokens = tokenize_set(train, models["vqvae"], features=True)
    heldout_tokens = tokenize_set(heldout, models["vqvae"])
    print(f"tokenized in {time.monotonic() - started:.1f} s", flush=True)

    def train_one(stage: str, make: Any, minutes: float, started: float) -> None:
        nonlocal models
        config = adjusted_var(make(minutes, classes, **common), args)
        made = train_var(
            tokens,
            models["vqvae"],
            config,
            heldout=heldout_tokens,
            initial=models.get(stage) if args.go_on else None,
            picture=sheet,
            started=started,
            name=stage,
            **logs(stage),
        )
        kept = {**parts(models), stage: stored(made.model, args.store)}
        models = save(kept, output, names, sampling, args.compute)
        save_png(sheet(models[stage]), output / f"samples_{stage}.png")
        finish(
            stage,
            started,
            config,
            made.fit,
            heldout=dict(made.heldout),
            attention=made.attention,
        )

    def parts(models: dict[str, Any]) -> dict[str, Any]:
        return {name: stored(model, args.store) for name, model in models.items()}

    if args.minutes_target:
        train_one("target", emoji_target_training, args.minutes_target, started)
        started = time.monotonic()
    if args.minutes_draft:
        train_one("draft", emoji_draft_training, args.minutes_draft, started)
        started = time.monotonic()
    if args.minutes_distill:
        config = adjusted(
            emoji_distillation(args.minutes_distill, sampling=sampling, **common), args
        )
        distilled = distill(
            tokens,
            models["vqvae"],
            models["target"],
            models["draft"],
            config,
            heldout=heldout_tokens,
            started=started,
            **logs("distill"),
        )
        kept = {**parts(models), "draft": stored(distilled.model, args.store)}
        models = save(kept, output, names, sampling, args.compute)
        save_png(sheet(models["draft"]), output / "samples_draft.png")
        if not (output / "samples_target.png").exists():
            save_png(sheet(models["target"]), output / "samples_target.png")
        finish(
            "distill",
            started,
            config,
            distilled.fit,
            heldout=dict(distilled.heldout),
            agreement_before=dict(distilled.before),
            agreement_after=dict(distilled.after),
        )


if __name__ == "__main__":
    main()
