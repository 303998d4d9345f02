"""Looking at the values of a state dict before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from convert.mapping import Config, derived_buffer, is_derived, kind_of
from sdvar_jax.checkpoint.lazy import LazyArray
from sdvar_jax.config import VARConfig


def value_problems(
    state: Mapping[str, LazyArray],
    config: Config,
    stored: Mapping[str, np.dtype],
    progress: Callable[[int], None],
) -> list[str]:
    """Every tensor whose values cannot be taken over.

    Args:
      state: PyTorch key -> array.
      config: of the model.
      stored: PyTorch key -> dtype that it will be stored in, of parameters.
      progress: called with the bytes of each array looked at.

    Returns:
      One text a kind of problem, naming all its keys.
    """
    broken, overflowing, different = [], [], []
    for key, array in state.items():
        values = array.read()
        if is_derived(key, kind_of(config)):
            assert isinstance(config, VARConfig)
            if not np.array_equal(values, derived_buffer(key, config)):
                different.append(key)
        elif not np.isfinite(values).all():
            broken.append(key)
        elif stored.get(key) == np.float16 and np.abs(values).max(initial=0) > _LARGEST_FLOAT16:
            overflowing.append(key)
        progress(array.nbytes)
    texts = (
        ("NaN or infinite values in", broken),
        ("values too large for float16 in", overflowing),
        ("buffers that do not follow from the configuration:", different),
    )
    return [f"{text} {', '.join(keys)}" for text, keys in texts if keys]


_LARGEST_FLOAT16 = float(np.finfo(np.float16).max)
