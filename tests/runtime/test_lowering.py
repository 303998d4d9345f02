"""Lowering: the same program, with the collector as it was afterwards."""

import gc
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from sdvar_jax.runtime import lowering
from sdvar_jax.runtime.lowering import lowered


def test_it_lowers_the_same_program():
    program = jax.jit(lambda x, power: x**power, static_argnames="power")
    x = jnp.arange(3.0)
    got = lowered(program, x=x, power=3)
    assert got.as_text() == program.lower(x=x, power=3).as_text()
    np.testing.assert_array_equal(got.compile()(x=x), [0.0, 1.0, 8.0])


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_paused_and_then_as_it_was(enabled):
    seen = []

    def refused(x):
        seen.append(gc.isenabled())
        raise ValueError("not to be traced")

    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(ValueError, match="not to be traced"):
            lowered(jax.jit(refused), x=jnp.ones(2))
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        (gc.enable if before else gc.disable)()


def test_triton_operations_are_found_where_mlir_looks(monkeypatch):
    dialect = pytest.importorskip("jaxlib.triton.dialect")
    name = lowering._TRITON_DIALECT
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, name)

    def double(x_ref, out_ref):
        out_ref[...] = plt.load(x_ref) * 2

    kernel = pl.pallas_call(double, jax.ShapeDtypeStruct((4,), jnp.float32), interpret=True)
    x = jnp.ones(4)
    np.testing.assert_array_equal(
        lowered(jax.jit(lambda x: kernel(x)), x=x).compile()(x=x), np.full(4, 2.0)
    )
    assert sys.modules[name] is dialect
