"""What ``import sdvar_jax`` offers."""

import ast
import inspect
import subprocess
import sys

import pytest

import sdvar_jax


@pytest.mark.parametrize("name", sdvar_jax.__all__)
def test_every_public_name_is_there(name):
    assert getattr(sdvar_jax, name) is not None
    assert name in dir(sdvar_jax)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sdvar_jax.nothing


def test_type_checkers_see_the_same_names():
    tree = ast.parse(inspect.getsource(sdvar_jax))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {node.module: tuple(alias.name for alias in node.names) for node in block.body}
    assert {home: set(names) for home, names in seen.items()} == {
        home: set(names) for home, names in sdvar_jax._HOMES.items()
    }


def test_importing_it_loads_nothing_else():
    program = "import sys, sdvar_jax; sys.exit(any(m in sys.modules for m in ('jax', 'numpy')))"
    subprocess.run([sys.executable, "-c", program], check=True)
