"""Checks shared by the configuration dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sdvar_jax.errors import SdvarError


def require(condition: bool, message: str) -> None:
    """Raises ``SdvarError(message)`` unless ``condition`` holds."""
    if not condition:
        raise SdvarError(message)


def require_known_fields(cls: type, data: Mapping[str, Any]) -> None:
    """Refuses a serialised configuration with unknown or missing fields, naming all of them.

    Args:
      cls: the configuration dataclass.
      data: its serialised form.

    Raises:
      SdvarError: a field is unknown, or one without a default is missing.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(data) - set(fields))
    missing = sorted(
        name
        for name, f in fields.items()
        if name not in data
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        raise SdvarError(
            f"{cls.__name__} cannot be read: unknown fields {unknown}, missing fields {missing}. "
            "The checkpoint was written by another version; convert it again."
        )
