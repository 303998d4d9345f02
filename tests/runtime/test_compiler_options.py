"""XLA options: those of the backend, as far as the installed XLA takes them."""

import jax
import numpy as np
import pytest

from sdvar_jax.runtime import compiler_options as module
from sdvar_jax.runtime.compiler_options import compiler_options


def test_programs_compile_with_them_and_compute_the_same():
    def product(a):
        return a @ a.T

    a = np.random.default_rng(0).standard_normal((64, 48)).astype(np.float32)
    compiled = jax.jit(product).lower(a).compile(compiler_options=compiler_options())
    np.testing.assert_allclose(compiled(a), a @ a.T, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(jax.__version_info__ >= (0, 12), reason="XLA may have dropped the option")
def test_on_a_cpu_products_are_compiled_by_xla_itself():
    def text(options):
        a = np.ones((8, 256, 256), np.float32)
        return jax.jit(lambda a: a @ a).lower(a).compile(compiler_options=options).as_text()

    assert "ynn" in text({})
    assert "ynn" not in text(compiler_options())


def test_an_option_that_xla_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(module, "_CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
    assert compiler_options() == {}


@pytest.mark.parametrize(
    ("backend", "wanted"), [("gpu", {"xla_gpu_enable_triton_gemm": False}), ("tpu", {})]
)
def test_each_backend_has_its_own(monkeypatch, backend, wanted):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(module, "_is_known", lambda name, value: True)
    assert compiler_options() == wanted
