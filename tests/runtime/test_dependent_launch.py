"""Kernels that let the next one start: only where the device knows how, and as a hint alone."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl

from sdvar_jax.runtime import dependent_launch
from sdvar_jax.runtime.dependent_launch import launch_next


@pytest.mark.parametrize(
    ("device", "available"),
    [
        (SimpleNamespace(platform="gpu", compute_capability="9.0"), True),
        (SimpleNamespace(platform="gpu", compute_capability="10.0"), True),
        (SimpleNamespace(platform="gpu", compute_capability="8.0"), False),
        (SimpleNamespace(platform="gpu", compute_capability="gfx942"), False),
        (SimpleNamespace(platform="cpu"), False),
    ],
    ids=["Hopper", "Blackwell", "Ampere", "AMD", "CPU"],
)
def test_devices_that_know_the_instruction(monkeypatch, device, available):
    monkeypatch.setattr(jax, "devices", lambda: [device])
    assert dependent_launch._available.__wrapped__() == available


def test_it_is_zero():
    def kernel(x_ref, out_ref):
        out_ref[...] = x_ref[...] + launch_next(interpret=True)

    x = jnp.arange(4)
    add = pl.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct((4,), x.dtype), interpret=True)
    assert add(x).tolist() == [0, 1, 2, 3]
