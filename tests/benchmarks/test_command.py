"""Command lines: what is wrong is told in one line before anything runs."""

import pytest

from benchmarks import (
    adaptive_policy,
    ceilings,
    floor,
    pytorch_peer,
    sample,
    startup,
    weights_quality,
    windows,
)
from benchmarks.ceilings import read_ceilings
from benchmarks.command import run_command
from benchmarks.peer import check_repo
from sdvar_jax.errors import SdvarError

GIVEN = ["--bandwidth", "4e12", "--flops", "8e14"]


@pytest.mark.parametrize(
    "module",
    [adaptive_policy, ceilings, floor, pytorch_peer, sample, startup, weights_quality, windows],
)
def test_every_command_explains_itself(module, capsys):
    with pytest.raises(SystemExit) as stop:
        module.build_parser().parse_args(["--help"])
    assert stop.value.code == 0
    assert f"python -m {module.__name__}" in capsys.readouterr().out


def test_the_floor_from_given_numbers_needs_no_device(capsys, tmp_path):
    path = tmp_path / "floor.md"
    floor.main(["--target", "d16", "d30", "--batch", "1", "8", *GIVEN, "--markdown", str(path)])
    printed = capsys.readouterr().out
    assert path.read_text() == printed
    assert len(printed.splitlines()) == 2 + 4


@pytest.mark.parametrize("arguments", [[], ["--bandwidth", "4e12"], ["--measure", *GIVEN]])
def test_the_floor_wants_to_know_the_device_in_one_way(arguments):
    with pytest.raises(SdvarError, match="--measure"):
        floor.main(arguments)


def test_ceilings_are_read_from_what_their_command_wrote(tmp_path):
    path = tmp_path / "ceilings.json"
    with pytest.raises(SdvarError, match=r"ceilings\.json"):
        read_ceilings(path)
    path.write_text(
        '{"records": [{"kind": "ceilings", "bytes_per_second": 1.0, "flops_per_second": 2.0,'
        ' "float32_flops_per_second": 3.0}]}'
    )
    assert read_ceilings(path).flops_per_second == 2.0


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_path_that_is_no_checkout_of_the_original_is_told(tmp_path, name):
    with pytest.raises(SdvarError, match=r"no checkout of the PyTorch original.*models/var\.py"):
        check_repo(tmp_path / name)


def test_the_peer_command_wants_the_path(tmp_path):
    with pytest.raises(SdvarError, match="--var-repo"):
        pytorch_peer.main(["--target", "tiny"])
    with pytest.raises(SdvarError, match="no checkout"):
        pytorch_peer.main(["--target", "tiny", "--var-repo", str(tmp_path)])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--only", "fastest"],
        ["--dtype", "float7"],
        ["--cost", "no-such-file.json"],
        ["--json", "no/such/directory/results.json"],
    ],
)
def test_the_suite_refuses_before_it_makes_models(arguments):
    with pytest.raises(SdvarError):
        sample.main(["--target", "tiny", *arguments])


def test_errors_end_a_command_in_one_line(capsys):
    def fails(_):
        raise SdvarError("what is wrong and what to do")

    with pytest.raises(SystemExit) as stop:
        run_command(fails)
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: what is wrong and what to do\n"
