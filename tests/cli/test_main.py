"""The command itself: help, version, exit codes, one line an error."""

import subprocess
import sys

import pytest

from sdvar_jax import __version__
from sdvar_jax.cli import commands
from sdvar_jax.errors import SdvarError


@pytest.fixture
def broken(monkeypatch):
    """Makes ``sdvar info`` raise what it is given."""

    def with_error(error):
        def info():
            raise error

        monkeypatch.setattr(commands.Command, "load", lambda command: info)

    return with_error


def test_the_version(sdvar):
    done = sdvar("--version")
    assert (done.code, done.out) == (0, f"sdvar {__version__}\n")


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_every_command(sdvar, words):
    done = sdvar(*words)
    assert done.code == 0
    for command in commands.COMMANDS:
        assert command.name in done.out
        assert command.help.rstrip(".") in done.out


@pytest.mark.parametrize("command", [command.name for command in commands.COMMANDS])
def test_every_command_has_help(sdvar, command):
    done = sdvar(command, "--help")
    assert done.code == 0
    assert f"Usage: sdvar {command}" in done.out


@pytest.mark.parametrize("command", [c for c in commands.COMMANDS if not c.group])
def test_the_list_of_commands_says_what_their_own_help_says(command):
    assert command.load().__doc__.splitlines()[0] == command.help


@pytest.mark.parametrize("words", [["--help"], ["sample", "--help"], ["info", "{pair}"]])
def test_help_and_info_answer_at_once_because_jax_is_not_imported(pair, words):
    words = [word.format(pair=pair) for word in words]
    program = (
        "import sys; from sdvar_jax.cli.main import main; main(sys.argv[1:]); "
        "sys.exit('jax' in sys.modules)"
    )
    command = [sys.executable, "-c", program, *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "sdvar_jax", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"sdvar {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smaple"], "No such command 'smaple'"),
        (["sample", "--sede", "1"], "No such option: --sede"),
        (["sample", "--seed", "x"], "Invalid value for '--seed'"),
        (["sample", "--seed", "-1"], "Invalid value for '--seed'"),
        (["sample", "--seed", str(2**32)], "Invalid value for '--seed'"),
        (["sample", "--cfg", "-1"], "Invalid value for '--cfg'"),
        (["sample", "--top-p", "1.5"], "Invalid value for '--top-p'"),
        (["sample", "--decoder", "both"], "Invalid value for '--decoder'"),
        (["reconstruct"], "Missing argument"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(sdvar, words, message):
    done = sdvar(*words)
    assert done.code == 2
    assert message in done.error
    assert "--help`" in done.error


def test_a_users_error_is_one_line_and_exit_code_2(sdvar, broken):
    broken(SdvarError("the cup is\nempty; fill it"))
    done = sdvar("info")
    assert done.code == 2
    assert done.error == "the cup is empty; fill it"


def test_an_unexpected_error_is_one_line_and_says_how_to_see_more(sdvar, broken):
    broken(RuntimeError("first line\nsecond line"))
    done = sdvar("info")
    assert done.code == 1
    assert done.error == (
        "unexpected RuntimeError: first line; run again with --debug for the traceback"
    )


@pytest.mark.parametrize("words", [("info", "--debug"), ("--debug", "info")])
@pytest.mark.parametrize("error", [RuntimeError("broken"), SdvarError("broken")])
def test_debug_shows_the_traceback(sdvar, broken, words, error):
    broken(error)
    done = sdvar(*words)
    assert "Traceback (most recent call last)" in done.err
    assert "error: " in done.err.splitlines()[-1]
    assert "run again" not in done.err


def test_running_out_of_memory_says_what_to_do(sdvar, broken):
    broken(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes"))
    done = sdvar("info")
    assert done.code == 2
    assert "smaller --batch-size" in done.error


def test_ctrl_c_ends_cleanly(sdvar, broken):
    broken(KeyboardInterrupt())
    done = sdvar("info")
    assert done.code == 130
    assert done.err.strip() == "interrupted"


def test_sigterm_ends_with_its_own_code(sdvar, broken):
    broken(SystemExit(143))
    assert sdvar("info").code == 143
