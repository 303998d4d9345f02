"""``python -m convert``: exit codes and what it prints."""

import pytest

from convert.__main__ import main
from sdvar_jax.checkpoint import read_info
from sdvar_jax.errors import SdvarError


def test_converts_and_exports(tmp_path, capsys, var_file, vqvae_file, var_state):
    output = str(tmp_path / "c")
    assert main([str(var_file), str(vqvae_file), "--output", output, "--dtype", "bfloat16"]) == 0
    printed = capsys.readouterr().out
    assert "var: 0.6 M parameters, bfloat16" in printed
    assert f"wrote {output}" in printed
    exported = str(tmp_path / "var.safetensors")
    assert main(["export", output, "--part", "var", "--output", exported]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {len(var_state)} tensors" in printed
    assert "note" not in printed


def test_8_bits(tmp_path, capsys, var_file):
    output = str(tmp_path / "c")
    options = ["--dtype", "int8", "--storage", "safetensors"]
    assert main([str(var_file), "--output", output, *options]) == 0
    assert "var: 0.6 M parameters, int8" in capsys.readouterr().out
    assert main(["export", output, "--output", str(tmp_path / "var.safetensors")]) == 0
    assert "note: the model is stored in int8" in capsys.readouterr().out


def test_every_option_reaches_the_conversion(tmp_path, save, vqvae_file, var_state):
    pyramidless = {k: v for k, v in var_state.items() if k != "lvl_1L"}
    nested = save("var", {f"ema.{k}": v for k, v in pyramidless.items()})
    names = tmp_path / "names.txt"
    names.write_text("".join(f"class {i}\n" for i in range(10)))
    arguments = [str(nested), "-o", str(tmp_path / "c"), "--pyramid", "1-2-3-4", "--quiet"]
    arguments += ["--prefix", "ema", "--class-names", str(names), "--storage", "safetensors"]
    assert main([*arguments, "--part", "var"]) == 0
    info = read_info(tmp_path / "c")
    assert info.class_names[9] == "class 9"
    assert info.storage == "safetensors"
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite"]) == 0


def test_an_error_is_one_line_and_exit_code_2(tmp_path, capsys):
    arguments = [str(tmp_path / "nothing.pth"), "--output", str(tmp_path / "c")]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.err == f"error: no such file: {tmp_path / 'nothing.pth'}\n"
    assert printed.out == ""
    with pytest.raises(SdvarError):
        main([*arguments, "--debug"])


def test_wrong_usage_is_exit_code_2(capsys):
    assert main([]) == 2
    assert "Missing argument" in capsys.readouterr().err


def test_help_tells_of_every_option(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for option in ("--output", "--draft", "--dtype", "--pyramid", "--overwrite"):
        assert option in printed
