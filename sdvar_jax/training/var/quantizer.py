"""The VQVAE's quantizer as frozen weights for compiled steps."""

from __future__ import annotations

import dataclasses

import jax
from flax import nnx

from sdvar_jax.config import VQVAEConfig
from sdvar_jax.models import VQVAE, Quantizer
from sdvar_jax.training.state import Params, model_params


@dataclasses.dataclass(frozen=True)
class FrozenQuantizer:
    """Shapes and weights of a quantizer.

    Attributes:
      config: of its VQVAE.
      params: dotted path -> weight.
    """

    config: VQVAEConfig
    params: Params

    @classmethod
    def of(cls, vqvae: VQVAE) -> FrozenQuantizer:
        """The quantizer of a VQVAE."""
        return cls(vqvae.config, model_params(vqvae.quantizer))

    def build(self, params: Params) -> Quantizer:
        """The quantizer with these weights (arguments of a compiled function)."""
        abstract = nnx.eval_shape(lambda: Quantizer(self.config, rngs=nnx.Rngs(0)))
        graph, state = nnx.split(abstract)
        for path, leaf in nnx.to_flat_state(state):
            leaf.set_value(jax.lax.stop_gradient(params[".".join(map(str, path))]))
        return nnx.merge(graph, state)
