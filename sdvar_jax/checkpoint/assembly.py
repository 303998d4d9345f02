"""Models built from arrays, without random weights made first only to be thrown away."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sdvar_jax.config import FLOAT32, DTypePolicy, VARConfig, VQVAEConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.models import VAR, VQVAE

Config = VARConfig | VQVAEConfig
Model = VAR | VQVAE
Array = np.ndarray | jax.Array


def flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """A nested dict as dotted paths: ``{"blocks": {0: {"x": a}}}`` -> ``{"blocks.0.x": a}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        flat.update(flatten(value, path) if isinstance(value, Mapping) else {path: value})
    return flat


def nest(flat: Mapping[str, Any], *, int_keys: bool = True) -> dict[Any, Any]:
    """The inverse of ``flatten``.

    Args:
      flat: dotted path -> value.
      int_keys: parts of a path that are numbers become int keys, as NNX has them; otherwise they
        stay names, as Orbax wants them.
    """
    tree: dict[Any, Any] = {}
    for path, value in flat.items():
        *parents, last = (
            int(part) if int_keys and part.isdecimal() else part for part in path.split(".")
        )
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def abstract_model(config: Config, dtypes: DTypePolicy = FLOAT32) -> Model:
    """The model with shapes and dtypes in place of arrays; nothing is computed or allocated."""
    graphdef, state = _abstract_state(config, dtypes)
    # A copy of the state: the one that is kept is shared.
    return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf, state))


@functools.lru_cache(maxsize=32)
def _abstract_state(config: Config, dtypes: DTypePolicy) -> tuple[nnx.GraphDef, nnx.State]:
    """Structure and abstract state of a model; tracing a large one takes seconds."""
    key = jax.eval_shape(lambda: jax.random.key(0))

    def build(key: jax.Array) -> Model:
        rngs: Any = _OneKey(key)
        if isinstance(config, VARConfig):
            return VAR(config, dtypes, rngs=rngs)
        return VQVAE(config, dtypes, rngs=rngs)

    return nnx.split(nnx.eval_shape(build, key))


class _OneKey:
    """Stands for ``nnx.Rngs`` where shapes alone count: every parameter gets the same key.

    ``nnx.Rngs`` keeps its count in an array, and under a trace each step of it takes longer than
    the one before: seconds for a large model.
    """

    def __init__(self, key: jax.Array) -> None:
        self._key = key

    def params(self) -> jax.Array:
        """The key."""
        return self._key


@functools.lru_cache(maxsize=32)
def abstract_arrays(
    config: Config, dtypes: DTypePolicy = FLOAT32
) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Dotted path -> shape and dtype of every parameter of a model."""
    _, state = _abstract_state(config, dtypes)
    return {
        ".".join(map(str, path)): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for path, leaf in nnx.to_flat_state(state)
    }


def check_arrays(shapes: Mapping[str, tuple[int, ...]], config: Config) -> None:
    """Raises unless the arrays are exactly the model's.

    Args:
      shapes: dotted path -> shape.
      config: of the model.

    Raises:
      SdvarError: naming every missing, unexpected and mis-shaped parameter.
    """
    wanted = abstract_arrays(config)
    problems = {
        "missing": [path for path in wanted if path not in shapes],
        "unexpected": [path for path in shapes if path not in wanted],
        "mis-shaped": [
            f"{path} {list(shapes[path])} instead of {list(wanted[path].shape)}"
            for path in shapes
            if path in wanted and tuple(shapes[path]) != wanted[path].shape
        ],
    }
    told = [f"{len(v)} {name}: {', '.join(v)}" for name, v in problems.items() if v]
    if told:
        name = "VAR" if isinstance(config, VARConfig) else "VQVAE"
        raise SdvarError(f"the weights do not fit the {name} model; {'; '.join(told)}")


def assemble(config: Config, arrays: Mapping[Any, Any], dtypes: DTypePolicy = FLOAT32) -> Any:
    """A model of ``config`` with the weights given.

    Args:
      config: of the model; its class decides between ``VAR`` and ``VQVAE``.
      arrays: nested dict that mirrors ``nnx.state(model)``, or dotted path -> array. Arrays that
        already have the parameter's dtype and are on a device are used as they are.
      dtypes: of the model's parameters and arithmetic.

    Returns:
      The ``VAR`` or ``VQVAE``.

    Raises:
      SdvarError: naming every missing, unexpected and mis-shaped parameter.
    """
    flat = flatten(arrays)
    check_arrays({path: tuple(array.shape) for path, array in flat.items()}, config)
    graphdef, abstract = _abstract_state(config, dtypes)
    state = jax.tree.map(lambda leaf: leaf, abstract)  # a copy: the abstract one is shared
    for path, leaf in nnx.to_flat_state(state):
        array = flat[".".join(map(str, path))]
        leaf.set_value(jnp.asarray(array, leaf.dtype))
    return nnx.merge(graphdef, state)


__all__ = [
    "abstract_arrays",
    "abstract_model",
    "assemble",
    "check_arrays",
    "flatten",
    "nest",
]
