"""Measuring a VAR on held-out tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.config import DTypePolicy, VARConfig
from sdvar_jax.training.state import Params
from sdvar_jax.training.templates import build_var
from sdvar_jax.training.var.forward import all_logits
from sdvar_jax.training.var.loss import token_losses
from sdvar_jax.training.var.quantizer import FrozenQuantizer
from sdvar_jax.training.var.tokens import TokenSet, inputs_of_tokens

_BATCH = 64


def make_var_evaluation(
    config: VARConfig,
    dtypes: DTypePolicy,
    quantizer: FrozenQuantizer,
    heldout: TokenSet,
    attention: str,
) -> Callable[[Params], Mapping[str, float]]:
    """A function that measures weights.

    Args:
      config: the VAR's shapes.
      dtypes: of the arithmetic.
      quantizer: that the tokens belong to.
      heldout: pictures that training does not see.
      attention: "xla" or "cudnn".

    Returns:
      weights -> "token_loss" (nats a token, true label, mean over all tokens), "accuracy" (share
      of tokens that are the most likely one) and "token_loss/scale_K" for each scale.
    """
    count, pyramid = len(heldout), config.pyramid
    batch = min(_BATCH, count)

    @jax.jit
    def measure(
        params: Params, frozen: Params, tokens: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        model = build_var(config, params, dtypes)
        inputs = inputs_of_tokens(quantizer.build(frozen), tokens)
        logits = all_logits(model, labels, inputs, attention=attention, scan=True)
        tokens = tokens.astype(jnp.int32)
        return token_losses(logits, tokens), jnp.argmax(logits, axis=-1) == tokens

    def evaluate(params: Params) -> Mapping[str, float]:
        losses, hits = [], []
        for first in range(0, count, batch):
            rows = np.minimum(np.arange(first, first + batch), count - 1)
            size = min(batch, count - first)
            got = measure(params, quantizer.params, heldout.tokens[rows], heldout.labels[rows])
            loss, hit = jax.device_get(got)
            losses.append(loss[:size])
            hits.append(hit[:size])
        loss = np.concatenate(losses)  # [n, total_length]
        told = {
            "token_loss": float(np.mean(loss)),
            "accuracy": float(np.mean(np.concatenate(hits))),
        }
        for scale in range(pyramid.num_scales):
            window = pyramid.window(scale, scale + 1)
            told[f"token_loss/scale_{scale + 1}"] = float(np.mean(loss[:, window]))
        return told

    return evaluate
