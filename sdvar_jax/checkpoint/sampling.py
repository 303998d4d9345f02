"""The object ``sampling`` of ``checkpoint.json``: settings that suit a checkpoint's models."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from sdvar_jax.config.validation import require
from sdvar_jax.sampling.config import SamplingConfig


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


# What may be set, and the JSON values that it takes. ``more_smooth`` is no property of models: it
# is a choice of the one who looks at the pictures.
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "cfg": (_is_number, "a number"),
    "top_k": (_is_whole, "a whole number"),
    "top_p": (_is_number, "a number"),
    "guidance_schedule": (lambda value: isinstance(value, str), "a word"),
    "guidance_until": (
        lambda value: value is None or _is_whole(value),
        "a whole number or null",
    ),
}


def sampling_to_dict(config: SamplingConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return {name: getattr(config, name) for name in _FIELDS}


def sampling_from_dict(data: Any) -> SamplingConfig:
    """Reads settings; what is not named is the package's default.

    Args:
      data: a JSON value.

    Raises:
      SdvarError: it is no object, holds unknown fields, or a value is refused.
    """
    require(isinstance(data, Mapping), f"sampling must be an object, got {data!r}")
    unknown = sorted(set(data) - set(_FIELDS))
    require(not unknown, f"sampling has unknown fields {unknown}; use {', '.join(_FIELDS)}")
    for name, value in data.items():
        fits, wanted = _FIELDS[name]
        require(fits(value), f"sampling: {name} must be {wanted}, got {value!r}")
    return SamplingConfig(**data)


def check_sampling(config: SamplingConfig, num_scales: int) -> None:
    """Raises unless the settings can stand in the checkpoint of a model of ``num_scales`` scales.

    Raises:
      SdvarError: naming the setting.
    """
    require(
        not config.more_smooth,
        "more_smooth cannot be a checkpoint's setting; ask for it where pictures are made",
    )
    require(
        config.guidance_until is None or config.guidance_until <= num_scales,
        f"sampling: guidance_until must lie in 0..{num_scales}, got {config.guidance_until}",
    )
