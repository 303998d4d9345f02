"""JAX's persistent cache, which the tests share, for a while in a directory of its own."""

import contextlib

import jax
from jax.experimental.compilation_cache import compilation_cache


@contextlib.contextmanager
def jaxs_cache_in(directory):
    """Everything compiled in the block is kept there, however soon it is compiled."""
    settings = {
        "jax_compilation_cache_dir": str(directory),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}

    def use(settings):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    use(settings)
    try:
        yield
    finally:
        use(before)
