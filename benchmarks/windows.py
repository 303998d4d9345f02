"""Costs of forwards over windows of scales, and the cost model that follows.

python -m benchmarks.windows --target d30 --draft d16 --batch 1 --json windows.json
python -m benchmarks.sample --only target adaptive acceptance --cost windows.json
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.budget import Budget
from benchmarks.command import (
    add_budget_option,
    add_run_options,
    add_size_options,
    check_outputs,
    random_models,
    run_command,
    run_context,
    sampling_config,
)
from benchmarks.forwards import ForwardTimer
from benchmarks.programs import compile_program, lower_tokens
from benchmarks.random_models import RandomModels, draft_name
from benchmarks.report import write_report
from benchmarks.results import Record, Results
from benchmarks.timing import measure
from sdvar_jax.config import DTypePolicy, ScalePyramid
from sdvar_jax.decoding import TargetOnly, TokenSampling, make_request
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.speculative.cost_model import CostModel, ForwardCost
from sdvar_jax.decoding.speculative.windows import CALLS_ALONE
from sdvar_jax.decoding.window import Window
from sdvar_jax.errors import SdvarError
from sdvar_jax.models import VAR
from sdvar_jax.pipeline import Pipeline, choose_filter
from sdvar_jax.sampling import SamplingConfig


def draft_windows(pyramid: ScalePyramid, every: bool) -> tuple[Window, ...]:
    """What a draft runs: scales one by one."""
    scales = range(pyramid.num_scales) if every else _spread(pyramid.num_scales)
    return tuple(Window(scale, scale + 1) for scale in scales)


def target_windows(pyramid: ScalePyramid, every: bool) -> tuple[Window, ...]:
    """What a target runs: scales one by one, windows from the first scale, windows to the last."""
    last = pyramid.num_scales
    stops = range(2, last + 1) if every else (max(2, last - 4), max(3, last - 3), last)
    starts = range(1, last - 1) if every else (max(1, last - 4), max(1, last - 2))
    windows = [
        *draft_windows(pyramid, every),
        *(Window(0, stop) for stop in stops),
        *(Window(start, last) for start in starts),
    ]
    return tuple(dict.fromkeys(windows))


def _spread(scales: int) -> tuple[int, ...]:
    """A few scales, more of the large ones, where the cost grows."""
    picked = {0, scales // 3, scales // 2, scales - 3, scales - 2, scales - 1}
    return tuple(sorted(scale for scale in picked if 0 <= scale < scales))


def measure_windows(
    timer: ForwardTimer, windows: Iterable[Window], repeats: int, budget: Budget
) -> Iterator[tuple[Window, float]]:
    """Seconds of each window, drawing included; stops where the budget is spent."""
    for window in windows:
        if not budget.allows("window"):
            return
        with budget.spend("window"):
            seconds = timer.time(window, repeats, drawing=True).seconds
        yield window, seconds


class CostMeasurement:
    """Measures draft and target at one batch size and fits the cost model.

    Args:
      models: with a draft.
      names: of the target and the draft.
      sampling: guidance and filtering.
      filter_method: how top-k and top-p are found.
      results: where the forwards and the model go.
      budget: of time.
      repeats: measured calls a window.
      every: measure all windows, not a few.
    """

    def __init__(
        self,
        models: RandomModels,
        names: tuple[str, str],
        sampling: SamplingConfig,
        filter_method: str,
        results: Results,
        budget: Budget,
        *,
        repeats: int = 20,
        every: bool = False,
    ) -> None:
        self._models, self._names = models, names
        self._sampling, self._filter_method = sampling, filter_method
        self._results, self._budget = results, budget
        self._repeats, self._every = repeats, every

    def run(self, batch: int) -> CostModel | None:
        """The cost model at ``batch`` images, or None where the budget left too few forwards."""
        pyramid, every = self._models.target.config.pyramid, self._every
        assert self._models.draft is not None
        target = self._fit(
            "target", self._models.target, self._names[0], target_windows(pyramid, every), batch
        )
        draft = self._fit(
            "draft", self._models.draft, self._names[1], draft_windows(pyramid, every), batch
        )
        if target is None or draft is None:
            self._results.add("skipped", what="cost model", reason="over the budget of time")
            return None
        turn = self._turn(batch)
        if turn is None:
            self._results.add(
                "skipped", what="a turn of the loop", reason="over the budget of time"
            )
        cost = CostModel(draft=draft, target=target, turn=turn or 0.0)
        self._results.add(
            "cost",
            target=self._names[0],
            draft=self._names[1],
            batch=batch,
            **{
                f"{role}_{field}": value
                for role, part in (("draft", draft), ("target", target))
                for field, value in dataclasses.asdict(part).items()
            },
            turn=turn,
        )
        return cost

    def _turn(self, batch: int) -> float | None:
        """Seconds that a turn of the loop takes besides its forwards.

        The target makes all scales alone, once straight on and once in a loop that must ask each
        time; None where the budget is spent.
        """
        if not self._budget.allows("turn"):
            return None
        target, vqvae = self._models.target, self._models.vqvae
        scales = target.config.pyramid.num_scales
        pipeline = Pipeline(
            target,
            vqvae,
            self._models.draft,
            kernels=target.kernels,
            filter_method=self._filter_method,
        )
        request = make_request(np.zeros(batch), 0, self._sampling, target.config.pyramid)
        in_loop = Speculative(gamma=(0,) * scales)
        with self._budget.spend("turn"):
            seconds = []
            for decoder in (TargetOnly(), in_loop):
                arguments = (pipeline, decoder, self._sampling, request)
                program = compile_program(functools.partial(lower_tokens, *arguments))
                timing = measure(functools.partial(program, request=request), self._repeats)
                seconds.append(timing.seconds)
        alone, looping = seconds
        # The first scale stands outside of the loop.
        turns = -(-(scales - 1) // CALLS_ALONE)
        return max(looping - alone, 0.0) / turns

    def _fit(
        self, role: str, model: VAR, name: str, windows: Sequence[Window], batch: int
    ) -> ForwardCost | None:
        request = make_request(
            np.zeros(batch), 0, self._sampling, self._models.target.config.pyramid
        )
        compiled_in = TokenSampling.of(
            self._sampling, self._models.target.config.pyramid.num_scales, self._filter_method
        )
        timer = ForwardTimer(model, self._models.vqvae.quantizer, request, compiled_in)
        tokens, seconds = [], []
        for window, took in measure_windows(timer, windows, self._repeats, self._budget):
            tokens.append(timer.tokens(window))
            seconds.append(took)
            self._results.add(
                "window",
                model=name,
                role=role,
                batch=batch,
                start=window.start,
                stop=window.stop,
                tokens=tokens[-1],
                seconds=took,
            )
        return ForwardCost.fit(tokens, seconds) if len(tokens) >= 2 else None


def cost_of(record: Record) -> CostModel:
    """The cost model of a result of kind "cost"."""
    return CostModel(
        draft=ForwardCost(record["draft_fixed"], record["draft_per_token"]),
        target=ForwardCost(record["target_fixed"], record["target_per_token"]),
        turn=record["turn"],
    )


def read_costs(path: Path) -> dict[tuple[str, str, int], CostModel]:
    """Cost models by target, draft and batch, from what this command or the suite wrote."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["records"]
        costs = {
            (record["target"], record["draft"], record["batch"]): cost_of(record)
            for record in records
            if record["kind"] == "cost"
        }
    except (OSError, ValueError, KeyError) as error:
        raise SdvarError(
            f"{path} cannot be read as costs; write it with python -m benchmarks.windows "
            f"--json {path}"
        ) from error
    if not costs:
        raise SdvarError(f"{path} holds no cost model; python -m benchmarks.windows writes them")
    return costs


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.windows", description=__doc__.splitlines()[0]
    )
    add_size_options(parser, several=False)
    parser.add_argument("--every", action="store_true", help="measure all windows, not a few")
    add_budget_option(parser)
    add_run_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints cost models."""
    options = build_parser().parse_args(arguments)
    check_outputs(options)
    DTypePolicy.of(options.dtype)  # a wrong name is told before the results file is made
    results = Results(run_context(options), options.json)
    names = (options.target, draft_name(options.draft, options.target))
    models = random_models(options, *names)
    measurement = CostMeasurement(
        models,
        names,
        sampling_config(options),
        choose_filter(options.filter, models.target.kernels),
        results,
        Budget(options.budget),
        repeats=options.repeats,
        every=options.every,
    )
    for batch in options.batch:
        cost = measurement.run(batch)
        if cost is not None:
            print(cost, flush=True)
    if options.markdown is not None:
        write_report(results, options.markdown)


if __name__ == "__main__":
    run_command(main)
