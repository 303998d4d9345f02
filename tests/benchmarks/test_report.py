"""The tables of a run."""

from benchmarks.report import break_evens, report
from benchmarks.results import Results


def decoder(case, seconds, acceptance=None, **fields):
    return {
        "case": case,
        "target": "d30",
        "draft": "d16",
        "batch": 1,
        "planned_acceptance": acceptance,
        "seconds": seconds,
        "program_bytes": 100,
        **fields,
    }


def results():
    made = Results({"device": "a device", "jax": "1"}, quiet=True)
    made.add("decoder", **decoder("target", 0.020))
    for acceptance, seconds in ((1.0, 0.010), (0.5, 0.020), (0.0, 0.030)):
        made.add("decoder", **decoder("exact", seconds, acceptance, program_bytes=120))
    made.add("phase", target="d30", batch=1, phase="modulations", seconds=0.001)
    made.add("phase", target="d30", batch=1, phase="forwards of all scales", seconds=0.011)
    made.add("forward", model="d30", batch=1, start=1, stop=2, tokens=4, seconds=0.004)
    made.add(
        "floor",
        target="d30",
        batch=1,
        modulations_seconds=0.001,
        memory_seconds=0.003,
        arithmetic_seconds=0.002,
        transformer_seconds=0.004,
        images_seconds=0.001,
        total_seconds=0.005,
        scales=[0.001, 0.002],
    )
    return made


def test_says_from_which_acceptance_on_a_decoder_pays():
    (row,) = break_evens(results())
    assert (row["case"], row["break_even"]) == ("exact", "50%")


def test_tells_everything_that_was_measured():
    text = report(results())
    for title in ("Decoders", "Acceptance from which it pays", "Forwards", "Floor"):
        assert f"### {title}" in text
    assert "### PyTorch original" not in text


def test_says_which_weights_were_used():
    made = results()
    for weights, told in (
        ("float", "a device, jax 1\n"),
        ("int8", "a device, jax 1, int8 weights"),
    ):
        made.context["settings"] = {"weights": weights}
        assert report(made).startswith(told)


def test_sets_memory_and_forwards_against_what_they_are_measured_by():
    text = report(results())
    exact = next(line for line in text.splitlines() if "| exact | 1 |" in line)
    assert exact.endswith("| 1.2 |")
    # 4 ms where the floor allows 2 ms; 12 ms in all where it allows 4.
    assert "| d30 | 1 | 2 | 4 | 4.000 ms | 2.000 ms | 2 |" in text
    assert "| 4.000 ms | 12.000 ms | 3 |" in text
