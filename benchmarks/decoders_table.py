"""The table of decoders: quality, target calls, acceptance, time and memory on a trained pair.

python -m benchmarks.decoders_table --model emoji --data emoji64.sdvar --output out --budget 230

Every decoder makes the same class-balanced pictures from the same seed; the reference of
target-only pictures has another seed. All programs are compiled first, then each row is measured
and shown as it comes. Rows stand in the order of importance, and those that no longer fit in the
budget are left out. ``table.json`` is complete at any time, ``table.md`` is written at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.budget import Budget
from benchmarks.command import positive, run_command, run_context
from benchmarks.compile_ahead import CompileAhead
from benchmarks.decoder_rows import GROUPS, TARGET, Row, pictures_at, table_rows
from benchmarks.programs import Lowered, Program, lower_images, lower_tokens
from benchmarks.results import Results, markdown_table
from sdvar_jax.data import load_dataset
from sdvar_jax.decoding import Request, make_request
from sdvar_jax.decoding.statistics import DecodingStatistics
from sdvar_jax.evaluation.estimate import Estimate
from sdvar_jax.evaluation.features import DEFAULT_FEATURES, FeatureExtractor, load_features
from sdvar_jax.evaluation.measure import FeatureSet, Reference
from sdvar_jax.loading import choose_dtypes, find_models
from sdvar_jax.models.kernels import AUTO
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.runtime.atomic import atomic_file
from sdvar_jax.runtime.compilation_cache import enable_compilation_cache
from sdvar_jax.runtime.directories import ensure_directory
from sdvar_jax.runtime.memory import peak_memory
from sdvar_jax.sampling.filtering import METHODS

# Shares of the budget after which nothing more is lowered, and nothing more begins to compile.
_LOWERING, _COMPILING = 0.50, 0.60


@dataclasses.dataclass(frozen=True)
class Runs:
    """What one decoder made at one batch size.

    Attributes:
      tokens: int32 [samples, total_length].
      features: of the pictures, where they were asked for.
      tokens_seconds: of each call that made tokens.
      seconds: of each call, pictures included.
      statistics: counts, or None.
    """

    tokens: np.ndarray
    features: FeatureSet | None
    tokens_seconds: list[float]
    seconds: list[float]
    statistics: DecodingStatistics | None


class Table:
    """A trained pair, what it is compared with, and its compiled programs."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.budget = Budget(options.budget)
        files = find_models(options.model, draft=options.draft)
        self.sampling = files.default_sampling.updated(
            cfg=options.cfg, top_k=options.top_k, top_p=options.top_p
        )
        # The results tell the settings that were used.
        options.cfg, options.top_k = self.sampling.cfg, self.sampling.top_k
        options.top_p = self.sampling.top_p
        self.extractor: FeatureExtractor = load_features(options.features)
        self.pipeline: Pipeline = files.load(
            choose_dtypes(options.dtype), filter_method=options.filter
        )
        config = self.pipeline.target.config
        self.pyramid = config.pyramid
        self.compiler = CompileAhead(options.threads, self._compiled)
        self.data = self.compiler.background(self._read_data)
        per_class = -(-options.samples // config.num_classes)
        self.labels = np.tile(np.arange(config.num_classes, dtype=np.int32), per_class)
        self.batch = max(options.batch)
        self.results = Results({}, None, quiet=True)
        self._target: dict[int, Runs] = {}
        self._other: Reference | None = None

    def _read_data(self) -> tuple[Reference, FeatureSet]:
        """Features of the training pictures and of the held-out ones."""
        parts = []
        for split in ("train", "heldout"):
            pictures = load_dataset(self.options.data, split, in_memory=True)
            features, classes = self.extractor(pictures.images)
            parts.append(FeatureSet(features, pictures.labels, classes))
        reference = Reference(parts[0])
        if self.options.neighbours:
            _ = reference.manifold
        return reference, parts[1]

    def requests(self, batch: int, seed: int, threshold: float) -> Iterator[tuple[Request, int]]:
        """The batches of a run, each with the number of its first picture."""
        count = pictures_at(batch, vars(self.options), len(self.labels))
        # Of fewer pictures the classes are spread evenly.
        numbers = (
            np.arange(count)
            if batch == self.batch
            else np.linspace(0, len(self.labels) - 1, count).astype(int)
        )
        for first in range(0, count, batch):
            rows = numbers[first : first + batch]
            request = make_request(
                self.labels[rows], seed, self.sampling, self.pyramid, threshold=threshold
            )
            yield request.replace(sample_ids=jax.numpy.asarray(rows, jax.numpy.int32)), first

    def lower_tokens(self, row: Row, batch: int) -> Lowered:
        """The program of a decoder's tokens, lowered."""
        request, _ = next(self.requests(batch, 0, row.threshold))
        return lower_tokens(self.pipeline, row.program, self.sampling, request)

    def lower_images(self, batch: int) -> Lowered:
        """The program from f_hats to pictures, lowered."""
        latent = self.pyramid.sides[-1]
        shape = (self.pyramid.num_scales + 1, batch, latent, latent)
        channels = self.pipeline.target.config.latent_channels
        f_hats = jax.ShapeDtypeStruct((*shape, channels), jax.numpy.float32)
        return lower_images(self.pipeline, f_hats)

    def compile_all(self, rows: Sequence[Row]) -> None:
        """Compiles what fits in its share of the time."""
        batches = sorted(self.options.batch, reverse=True)
        for batch in batches:
            self.compiler.submit(
                ("images", batch),
                functools.partial(self.lower_images, batch),
                f"pictures, batch {batch}",
            )
        for row in rows:
            if self._past(_LOWERING) and row.group != TARGET:
                break
            for batch in batches:
                self.compiler.submit(
                    (row.program, batch),
                    functools.partial(self.lower_tokens, row, batch),
                    f"{row.name}, batch {batch}",
                )
        lowered_after = self.budget.elapsed
        limit = self.options.budget
        self.compiler.settle(None if limit is None else _COMPILING * limit - lowered_after)
        compiled_after = self.budget.elapsed
        print(
            f"lowered in {lowered_after:.0f} s, compiled after {compiled_after:.0f} s", flush=True
        )
        self.results.context["compiled_after_seconds"] = compiled_after

    def _compiled(self, name: str, program: Program) -> None:
        """Tells that a program is ready."""
        self.results.add(
            "compiled",
            what=name,
            lower_seconds=program.lower_seconds,
            compile_seconds=program.compile_seconds,
        )
        print(
            f"[{self.budget.elapsed:.0f} s] {name}: lowered in {program.lower_seconds:.1f} s, "
            f"compiled in {program.compile_seconds:.1f} s",
            flush=True,
        )

    def _past(self, share: float) -> bool:
        limit = self.options.budget
        return limit is not None and self.budget.elapsed > share * limit

    def run(self, row: Row, batch: int, seed: int, *, pictures: bool) -> Runs | None:
        """Runs one decoder over all its requests, each call timed; None without a program."""
        program: Program | None = self.compiler.get((row.program, batch))
        images_program: Program | None = self.compiler.get(("images", batch))
        if program is None or images_program is None:
            return None
        warm, _ = next(self.requests(batch, seed, row.threshold))
        for _ in range(2):
            jax.block_until_ready(images_program(f_hats=program(request=warm).f_hats))
        tokens, counters, sizes, features, classes = [], [], [], [], []
        tokens_seconds, seconds = [], []
        for request, _ in self.requests(batch, seed, row.threshold):
            jax.block_until_ready(request)
            start = time.perf_counter()
            decoded = jax.block_until_ready(program(request=request))
            middle = time.perf_counter()
            images = jax.block_until_ready(images_program(f_hats=decoded.f_hats))
            seconds.append(time.perf_counter() - start)
            tokens_seconds.append(middle - start)
            tokens.append(decoded.tokens)
            sizes.append(batch)
            if decoded.counters is not None:
                counters.append(decoded.counters)
            if pictures:
                found = self.extractor(images)
                features.append(found[0])
                classes.append(found[1])
        made = None
        if pictures:
            predicted = np.concatenate(classes)
            labels = self.labels[: len(predicted)]
            made = FeatureSet(np.concatenate(features), labels, predicted)
        counters = jax.device_get(counters)
        return Runs(
            tokens=np.concatenate(jax.device_get(tokens)),
            features=made,
            tokens_seconds=tokens_seconds,
            seconds=seconds,
            statistics=DecodingStatistics.of(counters, sizes, self.pyramid) if counters else None,
        )

    def memory(self, row: Row, batch: int) -> int | None:
        """Bytes on the device while a decoder runs: all weights, and the larger program's work."""
        tokens, images = (
            self.compiler.get(key) for key in ((row.program, batch), ("images", batch))
        )
        if tokens is None or images is None:
            return None
        work = []
        for program in (tokens, images):
            if program.memory_bytes is None:
                return None
            arguments = program.executable.memory_analysis().argument_size_in_bytes
            work.append(program.memory_bytes - arguments)
        # What the pictures are made from stays while they are made.
        work[1] += arguments - images.weight_bytes
        return tokens.weight_bytes + max(work)

    def measure(self, row: Row) -> dict[str, Any] | None:
        """One row of the table, or None where a program is missing."""
        fields: dict[str, Any] = {}
        for batch in sorted(self.options.batch, reverse=True):
            judged = batch == self.batch
            runs = self.run(row, batch, self.options.seed, pictures=judged)
            if runs is None:
                return None
            if row.group == TARGET:
                self._target[batch] = runs
            fields |= self._timed(row, batch, runs)
            if judged:
                fields |= self._judged(runs)
        return fields

    def _timed(self, row: Row, batch: int, runs: Runs) -> dict[str, Any]:
        alone = self._target[batch]
        statistics, prefix = runs.statistics, f"b{batch}_"
        calls: float | None = row.fixed_target_calls(self.pyramid.num_scales)
        found: dict[str, Any] = {}
        if statistics is not None:
            calls = statistics.target_calls_per_batch
            found = {
                "draft_calls": statistics.draft_calls / statistics.batches,
                "acceptance": statistics.acceptance_rate,
                "judged_acceptance": statistics.judged_acceptance_rate,
                "token_agreement": statistics.token_agreement_rate,
                "accepted_by_scale": statistics.accepted_scales_per_scale.tolist(),
                "drafted_by_scale": statistics.draft_scales_per_scale.tolist(),
            }
        program = self.compiler.get((row.program, batch))
        assert program is not None
        low, high = np.quantile(runs.seconds, (0.25, 0.75))
        found |= {
            "target_calls": calls,
            "seconds": float(np.median(runs.seconds)),
            "seconds_quartiles": [float(low), float(high)],
            "tokens_seconds": float(np.median(runs.tokens_seconds)),
            "speedup": float(np.median(alone.seconds) / np.median(runs.seconds)),
            "tokens_speedup": float(
                np.median(alone.tokens_seconds) / np.median(runs.tokens_seconds)
            ),
            # The work of a batch varies with what is accepted: the whole run counts too.
            "mean_speedup": float(np.mean(alone.seconds) / np.mean(runs.seconds)),
            "memory_bytes": self.memory(row, batch),
            "lower_seconds": program.lower_seconds,
            "compile_seconds": program.compile_seconds,
            "identical": float(np.mean(np.all(runs.tokens == alone.tokens, axis=1))),
        }
        return {prefix + key: value for key, value in found.items()}

    def _judged(self, runs: Runs) -> dict[str, Any]:
        """Quality of the pictures."""
        assert runs.features is not None
        real, _ = self.data.result()
        options = {"resamples": self.options.resamples, "seed": self.options.seed}
        quality = real.quality(runs.features, neighbours=self.options.neighbours, **options)
        other = self.other_target().frechet(runs.features, **options)
        return {
            "samples": quality.samples,
            "frechet_real": dataclasses.asdict(quality.frechet),
            "frechet_target": dataclasses.asdict(other),
            **{
                name: None if value is None else dataclasses.asdict(value)
                for name, value in (
                    ("precision", quality.precision),
                    ("recall", quality.recall),
                    ("accuracy", quality.accuracy),
                )
            },
        }

    def other_target(self) -> Reference:
        """Pictures of the target alone from another seed; made once."""
        if self._other is None:
            row = table_rows(self.pyramid.num_scales, ["target"])[0]
            runs = self.run(row, self.batch, self.options.seed + 1, pictures=True)
            assert runs is not None
            assert runs.features is not None
            self._other = Reference(runs.features)
        return self._other

    def measure_heldout(self) -> None:
        """How far real pictures that nobody trained on are from the training pictures."""
        real, heldout = self.data.result()
        quality = real.quality(
            heldout, neighbours=self.options.neighbours, resamples=self.options.resamples
        )
        self.results.add("heldout", **quality.to_dict())
        print(f"held-out pictures: {quality.samples}, Frechet distance {quality.frechet}")

    def measure_rows(self, rows: Sequence[Row]) -> None:
        """All rows that fit in the budget."""
        for row in rows:
            reason = None
            if not self.budget.allows("row"):
                reason = "over the budget of time"
            else:
                try:
                    with self.budget.spend("row"):
                        fields = self.measure(row)
                    if fields is None:
                        reason = "not compiled within the budget of time"
                except jax.errors.JaxRuntimeError as error:
                    if row.group == TARGET:
                        raise
                    reason = str(error).splitlines()[0]
            if reason is not None:
                self.results.add("skipped", what=row.name, reason=reason)
                print(f"{row.name}: skipped, {reason}", flush=True)
                continue
            record = self.results.add("row", row=row.name, group=row.group, **fields)
            print(told(record, self.options.batch), flush=True)


def _estimate(fields: dict[str, float]) -> str:
    return str(Estimate(**fields))


def _percent(fields: dict[str, float] | None) -> str:
    return "" if fields is None else Estimate(**fields).percent()


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def told(record: dict[str, Any], batches: Sequence[int]) -> str:
    """A row as one line."""
    parts = [
        f"{record['row']}: Frechet real {_estimate(record['frechet_real'])}",
        f"target {_estimate(record['frechet_target'])}",
    ]
    for batch in batches:
        own = {k.removeprefix(f"b{batch}_"): v for k, v in record.items()}
        accepted = _share(own.get("acceptance"))
        parts.append(
            f"batch {batch}: {own['target_calls']:.2f} calls"
            + (f", {accepted} accepted" if accepted else "")
            + f", {_share(own['identical'])} identical, {1e3 * own['seconds']:.2f} ms, "
            f"x{own['speedup']:.2f} (tokens x{own['tokens_speedup']:.2f})"
        )
    return "; ".join(parts)


def table(results: Results, batches: Sequence[int]) -> str:
    """The Markdown of a run."""
    records = results.of_kind("row")
    target = next((r for r in records if r["group"] == TARGET), None)
    rows = []
    for record in records:
        row: dict[str, Any] = {
            "row": record["row"],
            "real": _estimate(record["frechet_real"]),
            "target": _estimate(record["frechet_target"]),
            **{name: _percent(record[name]) for name in ("precision", "recall", "accuracy")},
        }
        for batch in batches:
            own = {k.removeprefix(f"b{batch}_"): v for k, v in record.items()}
            memory = own["memory_bytes"]
            base = None if target is None else target[f"b{batch}_memory_bytes"]
            more = "" if not (memory and base) else f" ({memory / base - 1:+.0%})"
            row |= {
                f"calls{batch}": f"{own['target_calls']:.2f}",
                f"accepted{batch}": _share(own.get("acceptance")),
                f"same{batch}": _share(own["identical"]),
                f"time{batch}": f"{1e3 * own['seconds']:.1f} ms",
                f"speedup{batch}": f"{own['speedup']:.2f} ({own['tokens_speedup']:.2f})",
                f"memory{batch}": "" if memory is None else f"{memory / 2**20:.0f} MiB{more}",
            }
        rows.append(row)
    columns = {"row": "decoder"}
    for batch in batches:
        columns |= {
            f"calls{batch}": f"target calls, B={batch}",
            f"accepted{batch}": f"accepted, B={batch}",
            f"same{batch}": f"same picture as target, B={batch}",
        }
    columns |= {
        "real": "Frechet to real",
        "target": "Frechet to target-only",
        "precision": "precision",
        "recall": "recall",
        "accuracy": "class recognised",
    }
    for batch in batches:
        columns |= {
            f"time{batch}": f"time, B={batch}",
            f"speedup{batch}": f"speed-up (of the tokens), B={batch}",
            f"memory{batch}": f"memory, B={batch}",
        }
    context = results.context
    samples = records[0]["samples"] if records else 0
    fewer = ", ".join(
        f"{pictures_at(batch, context['settings'], samples):,} in the columns of B={batch}"
        for batch in batches
        if batch != max(batches)
    )
    parts = [
        f"{context['device']}, jax {context['jax']}. {samples:,} class-balanced pictures a row"
        + (f" ({fewer})" if fewer else "")
        + ", all from one seed; ± is a 95 % bootstrap interval. Frechet distances are in emoji "
        "features (not FID). `Frechet to target-only` compares with pictures of the target from "
        "another seed: the row `target` is its floor. Times are medians of whole calls, pictures "
        "decoded, compiling apart.",
        markdown_table(rows, columns),
    ]
    for record in results.of_kind("heldout"):
        parts.append(
            f"Real pictures held out from training ({record['samples']}), in the same measure: "
            f"{_estimate(record['frechet'])}."
        )
    if target is not None:
        decoding = [target[f"b{b}_seconds"] - target[f"b{b}_tokens_seconds"] for b in batches]
        times = [f"{1e3 * s:.1f} ms at B={b}" for s, b in zip(decoding, batches, strict=True)]
        parts.append(
            f"Of the time, decoding the pictures took {' and '.join(times)}; it is the same for "
            "all decoders."
        )
    skipped = results.of_kind("skipped")
    if skipped:
        parts.append("Left out: " + "; ".join(f"{r['what']} ({r['reason']})" for r in skipped))
    return "\n\n".join(parts) + "\n"


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoders_table", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", default="emoji", help="checkpoint directory or name")
    parser.add_argument("--draft", help="checkpoint of the draft, if not in --model")
    parser.add_argument("--data", type=Path, required=True, help="prepared picture set")
    parser.add_argument(
        "--features", type=Path, default=DEFAULT_FEATURES, help="of examples/train_features.py"
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of the results")
    parser.add_argument("--budget", type=float, metavar="SECONDS")
    parser.add_argument("--only", nargs="+", metavar="ROWS", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--batch", nargs="+", type=positive, default=[1, 32])
    parser.add_argument("--samples", type=positive, default=2016, help="pictures a row, at least")
    parser.add_argument("--single", type=positive, default=48, help="pictures at the smaller batch")
    parser.add_argument("--resamples", type=positive, default=100, help="of the bootstrap")
    parser.add_argument("--no-neighbours", dest="neighbours", action="store_false")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--filter", choices=(AUTO, *METHODS), default=AUTO, help="top-k/top-p")
    parser.add_argument("--cfg", type=float, help="default of these three: the checkpoint's own")
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--threads", type=positive, default=max(2, (os.cpu_count() or 2) - 2), help="to compile on"
    )
    return parser


def run(options: argparse.Namespace) -> Results:
    """Makes the table."""
    output = ensure_directory(options.output)
    enable_compilation_cache()
    made = Table(options)
    rows = table_rows(made.pyramid.num_scales, options.only)
    made.results = Results(run_context(options), output / "table.json", quiet=True)
    print(made.results.context["device"], flush=True)
    made.compile_all(rows)
    made.measure_heldout()
    made.measure_rows(rows)
    made.results.context["peak_bytes"] = peak_memory()[0]
    made.results.context["total_seconds"] = made.budget.elapsed
    made.results.add("end", total_seconds=made.budget.elapsed)
    text = table(made.results, options.batch)
    with atomic_file(output / "table.md") as aside:
        aside.write_text(text, encoding="utf-8")
    print(text, f"in {made.budget.elapsed:.0f} s", sep="\n", flush=True)
    return made.results


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the table."""
    run(build_parser().parse_args(arguments))


if __name__ == "__main__":
    run_command(main)
