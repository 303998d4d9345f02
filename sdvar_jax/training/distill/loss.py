"""How far a draft's guided distribution is from the target's."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from sdvar_jax.models import VAR
from sdvar_jax.training.var.forward import all_logits


def guided_logits(
    model: VAR,
    labels: jax.Array,
    inputs: jax.Array,
    strengths: jax.Array,
    *,
    attention: str,
    remat: bool = False,
    scan: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Logits of all scales under guidance, as sampling mixes them.

    Args:
      model: draft or target.
      labels: int [batch].
      inputs: teacher-forcing inputs [batch, total - first, channels].
      strengths: t of each picture at each position, float32 [batch, total_length].
      attention: "xla" or "cudnn".
      remat: see ``all_logits``.
      scan: see ``all_logits``.

    Returns:
      Guided logits (1 + t) * conditional - t * unconditional, and the conditional ones, float32
      [batch, total_length, vocab] each.
    """
    batch = labels.shape[0]
    chex.assert_shape(strengths, (batch, model.config.pyramid.total_length))
    unconditional = jnp.full_like(labels, model.config.unconditional_label)
    logits = all_logits(
        model,
        jnp.concatenate([labels, unconditional]),
        jnp.concatenate([inputs, inputs]),
        attention=attention,
        remat=remat,
        scan=scan,
    )
    conditional, free = logits[:batch], logits[batch:]
    t = strengths[..., None]
    return (1.0 + t) * conditional - t * free, conditional


def divergence(target: jax.Array, draft: jax.Array, temperature: float = 1.0) -> jax.Array:
    """KL(target || draft) of each token in nats.

    Args:
      target: logits float32 [batch, length, vocab]; -inf where a token cannot come.
      draft: logits, all finite.
      temperature: of both.

    Returns:
      float32 [batch, length].
    """
    chex.assert_equal_shape([target, draft])
    log_target = jax.nn.log_softmax(target / temperature, axis=-1)
    log_draft = jax.nn.log_softmax(draft / temperature, axis=-1)
    possible = jnp.isfinite(log_target)
    ratio = jnp.where(possible, log_target, 0.0) - log_draft
    return jnp.sum(jnp.where(possible, jnp.exp(log_target) * ratio, 0.0), axis=-1)


def strengths_by_position(
    cfg: jax.Array, guidance_shape: np.ndarray, lengths: tuple[int, ...]
) -> jax.Array:
    """Guidance strength of each picture at each position, float32 [batch, total_length].

    Args:
      cfg: strength of each picture [batch].
      guidance_shape: strength at each scale for a strength of 1, [num_scales].
      lengths: tokens of each scale.
    """
    by_position = jnp.asarray(np.repeat(guidance_shape, lengths), jnp.float32)
    return cfg[:, None] * by_position[None]
