"""Models with shapes in place of arrays: what can be compiled before there are weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from flax import nnx

_Model = TypeVar("_Model", bound=nnx.Module)
_Made = TypeVar("_Made")


def is_abstract(model: nnx.Module) -> bool:
    """Whether the model has shapes in place of arrays."""
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(nnx.state(model)))


def applied(function: Callable[[_Model], _Made], model: _Model) -> _Made:
    """``function(model)``; of an abstract model the shapes of it, and nothing is computed."""
    if is_abstract(model):
        made: _Made = nnx.eval_shape(function, model)
        return made
    return function(model)
