"""The suite: every decoder, its phases and its memory, at any published size and batch.

python -m benchmarks.sample --target d30 --draft d16 --batch 1 32 --json results.json
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peer
from benchmarks.budget import Budget
from benchmarks.cases import (
    GROUPS,
    KNOWN,
    Case,
    Choices,
    chosen_groups,
    decoding_cases,
    needs_draft,
)
from benchmarks.ceilings import measure_ceilings
from benchmarks.command import (
    add_adaptive_options,
    add_budget_option,
    add_run_options,
    add_size_options,
    check_outputs,
    positive,
    random_models,
    run_command,
    run_context,
    sampling_config,
    share,
)
from benchmarks.compile_ahead import CompileAhead
from benchmarks.floor import sequential_floor
from benchmarks.forwards import ForwardTimer
from benchmarks.phases import phase_timings
from benchmarks.plots import check_plots, write_plots
from benchmarks.programs import (
    Lower,
    Program,
    compile_program,
    lower_images,
    lower_tokens,
    lower_whole,
)
from benchmarks.random_models import draft_name, target_config
from benchmarks.report import report, write_report
from benchmarks.results import Results
from benchmarks.timing import host_fields, measure, measure_each
from benchmarks.windows import CostMeasurement, read_costs
from benchmarks.work import Ceilings
from sdvar_jax.config import DTypePolicy
from sdvar_jax.decoding import Decoder, Request, TargetOnly, make_request
from sdvar_jax.decoding.speculative.cost_model import CostModel
from sdvar_jax.decoding.speculative.state import Counters
from sdvar_jax.decoding.statistics import acceptance_seen
from sdvar_jax.decoding.window import Window
from sdvar_jax.models.var.quantized import has_int8_weights
from sdvar_jax.pipeline import Pipeline
from sdvar_jax.runtime.memory import peak_memory


class Suite:
    """One target with its draft; measures cases at any batch.

    Args:
      names: of the target and the draft (or None).
      options: the command line's.
      results: where results go.
      budget: of time.
    """

    def __init__(
        self,
        names: tuple[str, str | None],
        options: argparse.Namespace,
        results: Results,
        budget: Budget,
    ) -> None:
        self.target_name, self.draft_name = names
        self._results, self._budget, self._repeats = results, budget, options.repeats
        self._sampling, self._seed = sampling_config(options), options.seed
        with budget.spend("models"):
            self.models = random_models(options, *names)
        self._pipeline = Pipeline(
            self.models.target,
            self.models.vqvae,
            self.models.draft,
            kernels=options.kernels,
            filter_method=options.filter,
        )
        self._filter_method = self._pipeline.filter_method
        self._target_seconds: dict[int, float] = {}
        self._ahead: CompileAhead | None = None

    def request(self, batch: int, threshold: float = 1.0, draw: int = 0) -> Request:
        """Random labels; samples numbered from 0; ``draw`` chooses among seeds."""
        config = self.models.target.config
        labels = np.random.default_rng(self._seed).integers(0, config.num_classes, batch)
        return make_request(
            labels, self._seed + draw, self._sampling, config.pyramid, threshold=threshold
        )

    def _fields(self, batch: int) -> dict[str, object]:
        return {"target": self.target_name, "draft": self.draft_name, "batch": batch}

    def _skip(self, kind: str, what: str) -> bool:
        if self._budget.allows(kind):
            return False
        self._results.add("skipped", what=what, reason="over the budget of time")
        return True

    def measure_case(self, case: Case, batch: int) -> None:
        """Whole program of one decoder, at each of its planned acceptances."""
        if self._skip(case.name, f"{case.name}, batch {batch}"):
            return
        with self._budget.spend(case.name):
            # Kept for this case alone; what calls know decides which of them they run.
            programs = functools.cache(functools.partial(self._program, batch=batch))
            for point in case.acceptances:
                seen = self._measure_point(case, batch, programs, point)
                if case.learns:
                    later = dataclasses.replace(case, name=f"{case.name}, later calls")
                    self._measure_point(later, batch, programs, point, seen)

    def _settled(self, decoder: Decoder, batch: int, seen: tuple[int, int] = (0, 0)) -> Decoder:
        """The decoder as calls run it that know of this acceptance."""
        return decoder.settled(self.models.target.config.pyramid, batch, seen)

    def _program(self, decoder: Decoder, batch: int) -> Program:
        """Compiled ahead or now."""
        program = None if self._ahead is None else self._ahead.get((decoder, batch))
        return program or compile_program(self._lower(decoder, batch))

    def _lower(self, decoder: Decoder, batch: int) -> Lower:
        return functools.partial(
            lower_whole, self._pipeline, decoder, self._sampling, self.request(batch)
        )

    def compile_ahead(self, threads: int, wanted: Mapping[int, Choices]) -> None:
        """Compiles the decoders wanted at each batch size side by side, before any is timed.

        But for adaptive windows that go by costs which are yet to be measured.
        """
        self._ahead = CompileAhead(threads)
        for batch, choices in wanted.items():
            for case in decoding_cases(choices, self.models.target.config.pyramid.num_scales):
                if case.name == "adaptive" and choices.wants("windows"):
                    continue
                # Of adaptive windows: of nothing known, of no draft and of every draft accepted.
                known = ((0, 0), (0, KNOWN), (KNOWN, KNOWN)) if case.learns else ((0, 0),)
                for seen in known:
                    decoder = self._settled(case.decoder, batch, seen)
                    self._ahead.submit((decoder, batch), self._lower(decoder, batch))
        self._ahead.settle()

    def _measure_point(
        self,
        case: Case,
        batch: int,
        programs: Callable[[Decoder], Program],
        acceptance: float | None,
        seen: tuple[int, int] = (0, 0),
    ) -> tuple[int, int]:
        """One decoder at one planned acceptance.

        Args:
          case: the decoder.
          batch: images a call.
          programs: gives the compiled program of a decoder.
          acceptance: planned, or None.
          seen: drafted scales accepted and judged in earlier calls.

        Returns:
          Those of these calls, all together.
        """
        program = programs(self._settled(case.decoder, batch, seen))
        threshold = 1.0 if acceptance is None else acceptance
        known = jnp.asarray(seen, jnp.float32)

        def request_of(draw: int = 0) -> Request:
            return self.request(batch, threshold, draw).replace(acceptance_seen=known)

        host: dict[str, float] = {}
        if 0.0 < threshold < 1.0:
            # Luck decides what is accepted, and with it the work: many seeds, and their mean.
            requests = [request_of(draw) for draw in range(self._repeats)]
            calls = [functools.partial(program, request=request) for request in requests]
            timing, counters = measure_each(calls, lambda result: result[0].counters)
        else:
            request = request_of()
            timing = measure(lambda: program(request=request), self._repeats)
            host = host_fields(lambda: program(request=request)[0].tokens)
            # Every call saw the same.
            counters = [jax.device_get(program(request=request)[0].counters)] * self._repeats
        if case.name == "target":
            self._target_seconds[batch] = timing.seconds
        target = self._target_seconds.get(batch)
        self._results.add(
            "decoder",
            case=case.name,
            **self._fields(batch),
            planned_acceptance=acceptance,
            **_counts(counters),
            **timing.fields(),
            **host,
            images_per_second=batch / timing.seconds,
            speedup=None if target is None else target / timing.seconds,
            **self._compile_fields(program),
            peak_bytes=peak_memory()[0],
        )
        return acceptance_seen(counters)

    def _compile_fields(self, program: Program) -> dict[str, float | int | None]:
        fields = program.compile_fields()
        if self._ahead is not None:
            # What was compiled beside others tells nothing about how long it takes.
            del fields["lower_seconds"], fields["compile_seconds"]
        return fields

    def measure_phases(self, batch: int) -> None:
        """Tokens and images apart, and the parts of making tokens but for the forwards."""
        if self._skip("phases", f"phases, batch {batch}"):
            return
        with self._budget.spend("phases"):
            request = self.request(batch)
            arguments = (self._pipeline, TargetOnly(), self._sampling, request)
            tokens = compile_program(functools.partial(lower_tokens, *arguments))
            timing = measure(lambda: tokens(request=request), self._repeats)
            f_hats = tokens(request=request).f_hats
            self._add_phase("tokens", batch, {**timing.fields(), **tokens.compile_fields()})
            images = compile_program(functools.partial(lower_images, self._pipeline, f_hats))
            timing = measure(lambda: images(f_hats=f_hats), self._repeats)
            self._add_phase("images", batch, {**timing.fields(), **images.compile_fields()})
            compiled_in = self._pipeline.prepare(TargetOnly(), self._sampling)
            models = self.models
            for name, timing in phase_timings(
                models.target, models.vqvae.quantizer, request, compiled_in, self._repeats
            ):
                self._add_phase(name, batch, timing.fields())

    def _add_phase(self, phase: str, batch: int, fields: Mapping[str, Any]) -> None:
        self._results.add("phase", phase=phase, target=self.target_name, batch=batch, **fields)

    def measure_forwards(self, batch: int) -> None:
        """The target's forward at each scale."""
        compiled_in = self._pipeline.prepare(TargetOnly(), self._sampling)
        timer = ForwardTimer(
            self.models.target, self.models.vqvae.quantizer, self.request(batch), compiled_in
        )
        total = 0.0
        for scale in range(self.models.target.config.pyramid.num_scales):
            window = Window(scale, scale + 1)
            if self._skip("forward", f"forward of scale {scale + 1}, batch {batch}"):
                return
            with self._budget.spend("forward"):
                timing = timer.time(window, self._repeats)
            total += timing.seconds
            self._results.add(
                "forward",
                model=self.target_name,
                batch=batch,
                start=window.start,
                stop=window.stop,
                tokens=timer.tokens(window),
                **timing.fields(),
            )
        self._add_phase("forwards of all scales", batch, {"seconds": total})

    def add_floor(self, batch: int, ceilings: Ceilings) -> None:
        """The floor of target-only decoding."""
        target, vqvae = self.models.target, self.models.vqvae
        floor = sequential_floor(
            target.config,
            vqvae.config,
            batch,
            ceilings,
            guided=self._sampling.cfg > 0,
            itemsize=jnp.dtype(target.dtypes.param_dtype).itemsize,
            block_itemsize=1 if has_int8_weights(target) else None,
        )
        self._results.add("floor", target=self.target_name, batch=batch, **floor.fields())

    def measure_cost(self, batch: int) -> CostModel | None:
        """The cost model of this pair at this batch size."""
        assert self.draft_name is not None
        measurement = CostMeasurement(
            self.models,
            (self.target_name, self.draft_name),
            self._sampling,
            self._filter_method,
            self._results,
            self._budget,
            repeats=self._repeats,
        )
        return measurement.run(batch)

    def run(self, choices: Choices, batch: int, ceilings: Ceilings | None) -> None:
        """Everything that is wanted at one batch size."""
        scales = self.models.target.config.pyramid.num_scales
        if ceilings is not None:
            self.add_floor(batch, ceilings)
        if choices.wants("windows"):
            cost = self._guarded(lambda: self.measure_cost(batch), "windows", batch)
            choices = dataclasses.replace(choices, cost=cost or choices.cost)
        for case in decoding_cases(choices, scales):
            self._guarded(functools.partial(self.measure_case, case, batch), case.name, batch)
        if choices.wants("phases"):
            self._guarded(lambda: self.measure_phases(batch), "phases", batch)
        if choices.wants("forwards"):
            self._guarded(lambda: self.measure_forwards(batch), "forwards", batch)

    def _guarded(self, measurement: Callable[[], Any], what: str, batch: int) -> Any:
        """A case that does not fit in memory must not end the suite."""
        try:
            return measurement()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            self._results.add("skipped", what=f"{what}, batch {batch}", reason="out of memory")
            return None


def _counts(runs: Sequence[Counters | None]) -> dict[str, object]:
    """Calls a run and acceptance of all runs together, of a speculative decoder."""
    counters = [run for run in runs if run is not None]
    if not counters:
        return {}
    accepted, judged = acceptance_seen(counters)
    return {
        "acceptance": accepted / judged if judged else None,
        "target_calls": float(np.mean([run.target_calls for run in counters])),
        "draft_calls": float(np.mean([run.draft_calls for run in counters])),
    }


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sample", description=__doc__.splitlines()[0]
    )
    add_size_options(parser)
    parser.add_argument(
        "--only", nargs="+", metavar="CASE", help=f"measure these alone: {', '.join(GROUPS)}"
    )
    parser.add_argument("--gamma", type=int, default=10, help="scales to draft a check")
    parser.add_argument("--until", type=int, default=7, help="check the scales before this one")
    parser.add_argument("--entry", type=int, default=7, help="scale of the handoff")
    parser.add_argument(
        "--acceptance",
        nargs="+",
        type=share,
        default=list(Choices.acceptances),
        help="planned shares of accepted scales",
    )
    add_adaptive_options(parser)
    parser.add_argument(
        "--cost", type=Path, metavar="FILE", help="cost models, written by benchmarks.windows"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="persistent compilation cache")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="needs matplotlib")
    parser.add_argument(
        "--var-repo", type=Path, metavar="PATH", help="checkout of the PyTorch original to compare"
    )
    parser.add_argument(
        "--peer-compile", action="store_true", help="run the original with torch.compile too"
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="compile the decoders of a target side by side on so many threads; how long each "
        "takes is then not told",
    )
    add_budget_option(parser)
    add_run_options(parser)
    return parser


def _choices(options: argparse.Namespace) -> Choices:
    return Choices(
        groups=chosen_groups(options.only),
        gamma=options.gamma,
        until=options.until,
        entry=options.entry,
        acceptances=tuple(options.acceptance),
        adaptive_gammas=tuple(options.adaptive_gammas),
        adaptive_overhead=options.adaptive_overhead,
    )


def _check_all(options: argparse.Namespace) -> None:
    """Whatever is wrong is told before anything is made or measured."""
    check_outputs(options)
    DTypePolicy.of(options.dtype)
    if options.plots is not None:
        check_plots(options.plots)
    if options.var_repo is not None:
        peer.check_repo(options.var_repo)
        peer.check_torch()
        peer.share_device()


def _run_target(
    name: str,
    options: argparse.Namespace,
    choices: Choices,
    results: Results,
    budget: Budget,
    ceilings: Ceilings | None,
    costs: dict[tuple[str, str, int], CostModel],
) -> None:
    """Everything of one target; its memory is free again afterwards."""
    wanted = draft_name(options.draft, name)
    draft = wanted if needs_draft(choices.groups) else None
    suite = Suite((name, draft), options, results, budget)
    results.add("models", target=name, draft=draft, ready_after_seconds=budget.elapsed)
    by_batch = {
        batch: dataclasses.replace(choices, cost=costs.get((name, wanted, batch), choices.cost))
        for batch in options.batch
    }
    if options.threads is not None:
        suite.compile_ahead(options.threads, by_batch)
    for batch, chosen in by_batch.items():
        suite.run(chosen, batch, ceilings)
    del suite
    gc.collect()


def run(options: argparse.Namespace) -> None:
    """Runs the suite with the command line's options."""
    choices = _choices(options)
    _check_all(options)
    costs = {} if options.cost is None else read_costs(options.cost)
    if options.cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(options.cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    results, budget = Results(run_context(options), options.json), Budget(options.budget)
    print(results.context["device"], flush=True)
    ceilings = None
    if choices.wants("floor"):
        ceilings = measure_ceilings(DTypePolicy.of(options.dtype).compute_dtype)
        results.add("ceilings", **dataclasses.asdict(ceilings))
    for name in options.target:
        if not budget.allows("models"):
            results.add("skipped", what=name, reason="over the budget of time")
            continue
        _run_target(name, options, choices, results, budget, ceilings, costs)
        if options.var_repo is not None and budget.allows("peer"):
            with budget.spend("peer"):
                peer.measure_peer(
                    options.var_repo.absolute(),
                    name,
                    target_config(name),
                    options.batch,
                    sampling_config(options),
                    results,
                    compiled=options.peer_compile,
                    repeats=options.repeats,
                    seed=options.seed,
                )
    print(report(results), flush=True)
    if options.markdown is not None:
        write_report(results, options.markdown)
    if options.plots is not None:
        write_plots(results, options.plots)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the suite."""
    run(build_parser().parse_args(arguments))


if __name__ == "__main__":
    run_command(main)
