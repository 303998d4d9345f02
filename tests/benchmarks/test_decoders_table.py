"""The table of decoders: its rows, its text, and compiling ahead within a time."""

import threading
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks.compile_ahead import CompileAhead
from benchmarks.decoder_rows import GROUPS, pictures_at, table_rows
from benchmarks.decoders_table import table, told
from benchmarks.results import Results, read_results
from sdvar_jax.errors import SdvarError

RESULTS = Path(__file__).parents[2] / "docs/results/emoji"


class TestRows:
    def test_all_groups_are_there_and_the_most_important_first(self):
        rows = table_rows(10)
        assert {row.group for row in rows} == set(GROUPS)
        assert [row.name for row in rows[:3]] == ["target", "draft", "exact, gamma 9"]
        assert len({row.name for row in rows}) == len(rows)

    def test_exact_and_match_of_all_thresholds_share_a_program(self):
        match = table_rows(10, ["match"])[1:]
        assert [row.threshold for row in match] == [0.5, 0.7, 0.9]
        exact = table_rows(10, ["exact"])[1]
        assert (exact.name, exact.threshold) == ("exact, gamma 9", 1.0)
        assert {row.program for row in (*match, exact)} == {exact.program}
        assert exact.program != exact.decoder

    def test_the_program_of_exact_rows_does_what_exact_does(self):
        from small_models import small_model, small_target, small_vqvae

        from sdvar_jax.pipeline import Pipeline

        target, other = small_target(), small_model(small_target().config, 4)
        graph, state = nnx.split(target)
        near = jax.tree.map(lambda a, b: a + 0.1 * (b - a), state, nnx.state(other))
        pipeline = Pipeline(target, small_vqvae(), nnx.merge(graph, near))
        row = table_rows(3, ["exact"])[1]
        own, shared = (
            pipeline.sample([1, 7, 3], decoder=decoder, threshold=row.threshold)
            for decoder in (row.decoder, row.program)
        )
        for ours, theirs in zip(own.tokens, shared.tokens, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert own.statistics.to_dict() == shared.statistics.to_dict()
        assert own.statistics.num_accepted_scales > 0
        assert own.statistics.rejected_scales_per_scale.sum() > 0

    def test_the_target_is_always_there(self):
        assert [row.name for row in table_rows(10, ["draft"])] == ["target", "draft"]

    def test_decoders_that_always_make_the_same_calls(self):
        calls = {row.name: row.fixed_target_calls(10) for row in table_rows(10)}
        assert calls["target"] == 10
        assert calls["draft"] == 0
        assert calls["handoff: target up to scale 7, then draft"] == 7
        assert calls["handoff: draft up to scale 7, then target"] == 3
        assert calls["exact, gamma 9"] is None

    @pytest.mark.parametrize("scales", [3, 4, 6, 10])
    def test_every_row_suits_a_pyramid_of_any_height(self, scales):
        from sdvar_jax.config import ScalePyramid, VARConfig
        from sdvar_jax.decoding import TokenSampling

        target = VARConfig.of_depth(1, pyramid=ScalePyramid(tuple(range(1, scales + 1))))
        for row in table_rows(scales):
            row.decoder.validate(target, TokenSampling(scales), row.threshold)

    def test_unknown_groups_are_told(self):
        with pytest.raises(SdvarError, match="unknown rows exakt"):
            table_rows(10, ["exakt"])


class TestPictures:
    SETTINGS = {"batch": [1, 8, 32], "single": 50}  # noqa: RUF012

    def test_all_are_made_at_the_largest_batch_and_few_at_the_others(self):
        assert [pictures_at(batch, self.SETTINGS, 2016) for batch in (1, 8, 32)] == [50, 48, 2016]

    def test_batches_are_full(self):
        assert pictures_at(32, self.SETTINGS, 2017) == 2016

    def test_no_more_are_made_than_there_are_labels(self):
        assert pictures_at(1, self.SETTINGS, 36) == 36


def lowered(compile_it):
    program = types.SimpleNamespace(compile=lambda compiler_options: compile_it())
    return lambda: (program, {"weights": 1})


class TestCompileAhead:
    def test_programs_are_found_by_their_key_and_lowered_once(self):
        told = []
        compiler = CompileAhead(2, lambda name, program: told.append((name, program.executable)))
        compiler.submit("a", lowered(lambda: "first"), "A")
        compiler.submit("a", lowered(lambda: "second"), "A again")
        compiler.settle(10)
        assert told == [("A", "first")]
        assert compiler.get("a").executable == "first"
        assert compiler.get("a").fixed == {"weights": 1}
        assert compiler.get("b") is None

    def test_what_has_not_begun_in_time_is_given_up_and_the_rest_is_waited_for(self):
        compiler, go = CompileAhead(1), threading.Event()
        compiler.submit("slow", lowered(lambda: go.wait(10)))
        compiler.submit("late", lowered(lambda: "never"))
        threading.Timer(0.2, go.set).start()
        compiler.settle(0)
        assert compiler.get("slow").executable is True
        assert compiler.get("late") is None

    def test_a_failure_is_raised_where_the_program_is_wanted(self):
        def fail():
            raise ValueError("no")

        compiler = CompileAhead(1)
        compiler.submit("a", lowered(fail))
        compiler.settle(10)
        with pytest.raises(ValueError, match="no"):
            compiler.get("a")


def record(name, group, seconds):
    estimate = {"value": 1.0, "deviation": 0.1, "low": 0.8, "high": 1.2}
    fields = {
        "target_calls": 10,
        "seconds": seconds,
        "tokens_seconds": seconds / 2,
        "speedup": 0.02 / seconds,
        "tokens_speedup": 1.0,
        "identical": 1.0,
        "memory_bytes": 2**20,
    }
    return {
        "row": name,
        "group": group,
        "samples": 36,
        "frechet_real": estimate,
        "frechet_target": estimate,
        "precision": estimate,
        "recall": None,
        "accuracy": None,
        **{f"b1_{key}": value for key, value in fields.items()},
    }


@pytest.mark.parametrize("name", ["decoders", "decoders_rest"])
def test_the_docs_show_what_the_record_says(name):
    text = table(read_results(RESULTS / f"{name}.json"), [1, 32])
    assert "2,016 class-balanced pictures a row (48 in the columns of B=1)," in text
    assert text in (RESULTS / "decoders.md").read_text(encoding="utf-8")


def test_the_text_holds_every_row_with_its_figures_and_what_is_missing():
    settings = {"batch": [1], "single": 48}
    results = Results({"device": "a device", "jax": "0.11", "settings": settings}, quiet=True)
    results.add("row", **record("target", "target", 0.02))
    results.add("row", **record("exact, gamma 9", "exact", 0.01))
    results.add("skipped", what="refine 1", reason="over the budget of time")
    text = table(results, [1])
    assert "36 class-balanced pictures a row, all" in text
    assert "| exact, gamma 9 | 10.00 |" in text
    assert "1 ± 0.2" in text
    assert "2.00 (1.00)" in text
    assert "1 MiB (+0%)" in text
    assert "10.0 ms at B=1" in text
    assert "refine 1 (over the budget of time)" in text
    assert told(results.records[1], [1]).startswith("exact, gamma 9: Frechet real 1 ± 0.2; target")
