"""What adaptive windows gain and lose by the cost model, over acceptance; runs no model.

python -m benchmarks.adaptive_policy --batch 1 8
python -m benchmarks.adaptive_policy --cost windows.json --target d30 --draft d16
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from benchmarks.cases import KNOWN
from benchmarks.command import add_adaptive_options, positive, run_command, share
from benchmarks.results import markdown_table
from benchmarks.windows import read_costs
from sdvar_jax.config import PYRAMID_256, ScalePyramid
from sdvar_jax.decoding.speculative import CostModel, Speculative
from sdvar_jax.decoding.speculative.alone import OnTrial
from sdvar_jax.decoding.speculative.cost_model import (
    DEFAULT_COST,
    FIRST_CHOICE,
    Spent,
    acceptance_estimates,
    choose_window,
)
from sdvar_jax.decoding.speculative.decoder import PROGRESSES
from sdvar_jax.decoding.speculative.windows import CheckWindow, plan_alone
from sdvar_jax.errors import SdvarError


class Policy:
    """The windows that an adaptive decoder takes, one batch at a time.

    Args:
      decoder: its choices, overhead and progress.
      pyramid: the scales.
      cost: of the forwards.
    """

    def __init__(self, decoder: Speculative, pyramid: ScalePyramid, cost: CostModel) -> None:
        decoder = dataclasses.replace(decoder, cost=cost)
        self.pyramid, self.cost = pyramid, cost
        self.plan = decoder.plan(pyramid)
        self._per_sample = decoder.progress == "per-sample"
        self.alone = sum(map(cost.target.seconds, pyramid.lengths))
        self._decoder = decoder
        self._choose = jax.jit(
            functools.partial(
                choose_window, self.plan, pyramid, cost, overhead=decoder.adaptive_overhead
            )
        )

    def seconds(
        self, passes: np.ndarray, accepted: float = 0.0, judged: float = 0.0
    ) -> tuple[float, list[CheckWindow]]:
        """Seconds of a batch, and its windows.

        Args:
          passes: whether each sample's draft of each scale passes, however often it is judged,
            bool [batch, num_scales].
          accepted: drafted scales that passed in earlier requests.
          judged: how many were judged there.
        """
        lengths, offsets = self.pyramid.lengths, self.pyramid.offsets
        scales, progress = np.arange(len(lengths)), np.zeros((len(passes), 1), np.int32)
        now, windows = Spent(*np.zeros(6, np.int32), turns=np.float32(0)), []
        settled = self._decoder.settled(self.pyramid, len(passes), (accepted, judged))
        if not settled.waits:
            trial = 0.0
            if isinstance(settled, OnTrial):
                trial = self.cost.draft.seconds(offsets[settled.scales])
            return self.alone + trial, [*plan_alone(len(lengths)).windows]
        assert isinstance(settled, Speculative)
        while now.committed < self.plan.limit:
            start = int(now.committed)
            estimates = acceptance_estimates(accepted, judged)
            at_stake = np.sum(progress <= scales, axis=0, dtype=np.int32)
            if start == 0 and settled.begin is not None:
                choice = settled.begin - FIRST_CHOICE
            else:
                choice = int(self._choose(now, at_stake, *estimates))
            checked, *alone = self.plan.turn(start, choice)
            windows += [checked, *alone]
            held = int(now.draft_length)
            if checked.drafted:
                # The draft first reads what it has not seen, a scale at a time at the most.
                unread = lengths[held : checked.drafted_stop]
                now = now.replace(
                    draft_calls=now.draft_calls + len(unread),
                    draft_tokens=now.draft_tokens + sum(unread),
                )
                held = checked.drafted_stop
            # The law of ``commit``: [batch, 1] against [num_scales].
            fails = ~passes & (scales >= progress) & (scales < checked.drafted_stop)
            rejected = np.where(fails, scales, len(lengths)).min(axis=1, keepdims=True)
            reached = np.maximum(progress, np.minimum(rejected + 1, checked.window.stop))
            if not self._per_sample:
                reached = np.full_like(reached, reached.min())
            fresh = (scales >= progress) & (scales < np.minimum(reached, checked.drafted_stop))
            accepted += int(np.sum(fresh & (scales < rejected)))
            judged += int(np.sum(fresh))
            # The target alone may go on for some scales.
            reached = np.maximum(reached, alone[-1].window.stop if alone else 0)
            progress, committed = reached, int(reached.min())
            stop = (alone or [checked])[-1].window.stop
            now = now.replace(
                committed=np.int32(committed),
                draft_length=np.int32(min(held, committed)),
                target_calls=now.target_calls + 1 + len(alone),
                target_tokens=now.target_tokens + offsets[stop] - offsets[start],
                turns=now.turns + 1,
            )
        return self.alone + float(now.lost(self.cost, self.pyramid)), windows


def rows(
    policy: Policy, batch: int, acceptances: Sequence[float], draws: int, seed: int
) -> list[dict]:
    """Times as fast as the target alone, a row an acceptance."""
    uniform = np.random.default_rng(seed).random((draws, batch, policy.pyramid.num_scales))

    def mean(seconds: Callable[[np.ndarray], float], chance: float) -> str:
        outcomes, counts = np.unique(uniform < chance, axis=0, return_counts=True)
        times = [seconds(outcome) for outcome in outcomes]
        return f"{policy.alone / float(np.average(times, weights=counts)):.2f}"

    return [
        {
            "batch": batch,
            "acceptance": f"{chance:.0%}",
            "first": mean(lambda passes: policy.seconds(passes)[0], chance),
            "later": mean(
                lambda passes, c=chance: policy.seconds(passes, c * KNOWN, KNOWN)[0], chance
            ),
        }
        for chance in acceptances
    ]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adaptive_policy", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--cost", type=Path, metavar="FILE", help="cost models, written by benchmarks.windows"
    )
    parser.add_argument("--target", default="d30", help="whose cost in the file (default: d30)")
    parser.add_argument("--draft", default="d16", help="likewise (default: d16)")
    parser.add_argument(
        "--batch", nargs="+", type=positive, default=[1], help="pictures a call (default: 1)"
    )
    parser.add_argument(
        "--progress",
        choices=PROGRESSES,
        default="minimum",
        help="how a batch advances (default: %(default)s)",
    )
    add_adaptive_options(parser)
    parser.add_argument(
        "--acceptance", nargs="+", type=share, default=[0.0, 0.25, 0.5, 0.75, 0.9, 1.0]
    )
    parser.add_argument("--draws", type=positive, default=2000, help="batches a row")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _costs(options: argparse.Namespace) -> dict[int, CostModel]:
    """The cost model at each batch size, from the file where one is given."""
    if options.cost is None:
        return dict.fromkeys(options.batch, DEFAULT_COST)
    costs = read_costs(options.cost)
    for batch in options.batch:
        if (options.target, options.draft, batch) not in costs:
            raise SdvarError(
                f"{options.cost} has no costs of {options.target} with {options.draft} at batch "
                f"{batch}; it has {', '.join(map(str, costs))}"
            )
    return {batch: costs[options.target, options.draft, batch] for batch in options.batch}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    options = build_parser().parse_args(arguments)
    costs = _costs(options)
    decoder = Speculative(
        gamma="adaptive",
        adaptive_gammas=tuple(options.adaptive_gammas),
        adaptive_overhead=options.adaptive_overhead,
        progress=options.progress,
    )
    columns = {
        "batch": "batch",
        "acceptance": "acceptance",
        "first": "a first request",
        "later": "later ones",
    }
    table = []
    for batch, cost in costs.items():
        for name, forward in (("draft", cost.draft), ("target", cost.target)):
            law = f"{forward.fixed:.4g} + {forward.per_token:.4g} a token"
            print(f"batch {batch}, {name}: {law}")
        print(f"batch {batch}, a turn of the loop besides: {cost.turn:.4g}")
        policy = Policy(decoder, PYRAMID_256, cost)
        table += rows(policy, batch, options.acceptance, options.draws, options.seed)
    print(markdown_table(table, columns))


if __name__ == "__main__":
    run_command(main)
