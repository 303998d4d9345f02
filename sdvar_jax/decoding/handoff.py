"""Handoff: one model makes the scales before ``entry``, the other the rest, without a check."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sdvar_jax.config import ScalePyramid, VARConfig
from sdvar_jax.config.validation import require
from sdvar_jax.decoding.base import Decoded, DecoderInHalves
from sdvar_jax.decoding.f_hat import initial_f_hats
from sdvar_jax.decoding.request import Request, TokenSampling, with_noise
from sdvar_jax.decoding.sequential import after_scale, decode_scale
from sdvar_jax.decoding.window import (
    Window,
    class_modulations,
    draw_tokens,
    forward_window,
)
from sdvar_jax.models import VAR, Quantizer
from sdvar_jax.models.var import block_causal_mask, scale_of_position

BLOCK_CAUSAL = 3
MASKS = {
    0: "no prefix at all",
    1: "earlier scales and self, not the rest of its own scale",
    2: "as 1, but the entry scale sees everything",
    BLOCK_CAUSAL: "VAR's block-causal mask",
    4: "own scale only",
    5: "as 4, but the entry scale sees everything",
}
ORDERS = ("draft-target", "target-draft")


def entry_mask(pyramid: ScalePyramid, entry: int, mask: int) -> np.ndarray:
    """What the scales up to and including ``entry`` see in the forward that enters.

    Args:
      pyramid: the scales.
      entry: 0-based scale of the handoff.
      mask: number of the published mask, see ``MASKS``.

    Returns:
      bool [positions up to the entry scale's end, likewise].
    """
    stop = pyramid.offsets[entry + 1]
    scales = scale_of_position(pyramid)[:stop]
    block_causal = block_causal_mask(pyramid, 0, entry + 1)
    own_scale = scales[:, None] == scales[None]
    if mask == BLOCK_CAUSAL:
        return block_causal
    earlier_and_self = (block_causal & ~own_scale) | np.eye(stop, dtype=bool)
    seen = earlier_and_self if mask in (1, 2) else own_scale
    if mask in (2, 5):
        seen = np.where((scales == entry)[:, None], True, seen)
    return seen


class Begun(struct.PyTreeNode):
    """What the first model made.

    Attributes:
      tokens: int32 [batch, positions of its scales].
      f_hats: see ``Decoded``; behind its scales zeros.
      noise: the run's, see ``Request``.
    """

    tokens: jax.Array
    f_hats: jax.Array
    noise: jax.Array


@dataclasses.dataclass(frozen=True)
class Handoff(DecoderInHalves[Begun]):
    """One model makes the scales before ``entry``, the other those from it on.

    "draft-target" is SDVAR's ``test3``; "target-draft" is collaborative decoding: the large model
    makes the few small scales, the small one the many-token scales. When the second model enters
    it fills its KV cache from the scales so far in one forward.

    Attributes:
      entry: 0-based first scale of the second model; 0 is the second alone, K the first alone.
      order: which model comes first.
      mask: attention mask of the entering forward as published, see ``MASKS``; 3 is the correct
        one, the others are kept as published experiments. With 0 the second model's cache starts
        at the entry scale.
    """

    entry: int
    order: str = "target-draft"
    mask: int = BLOCK_CAUSAL

    name = "handoff"

    def __post_init__(self) -> None:
        require(
            self.order in ORDERS, f"unknown order {self.order!r}; use one of {', '.join(ORDERS)}"
        )
        require(
            self.mask in MASKS,
            f"unknown mask {self.mask}; use one of "
            + ", ".join(f"{number} ({meaning})" for number, meaning in MASKS.items()),
        )

    @property
    def needs_draft(self) -> bool:
        """Both models work."""
        return True

    def validate(
        self, target: VARConfig, sampling: TokenSampling, threshold: float | None = None
    ) -> None:
        """Refuses an entry outside the pyramid."""
        scales = target.pyramid.num_scales
        require(
            0 <= self.entry <= scales,
            f"entry must lie in 0..{scales} for a pyramid of {scales} scales, got {self.entry}",
        )

    @property
    def halves(self) -> tuple[str, str]:
        """Which model comes first, and which second."""
        return ("draft", "target") if self.order == "draft-target" else ("target", "draft")

    def begin(
        self, model: VAR, quantizer: Quantizer, request: Request, sampling: TokenSampling
    ) -> Begun:
        """The scales before ``entry``."""
        pyramid = model.config.pyramid
        request = with_noise(request, pyramid, model.config.vocab_size)
        assert request.noise is not None
        f_hats = initial_f_hats(quantizer, request.batch)
        modulations = class_modulations(model, request, sampling)
        cache = model.make_cache(modulations.condition.shape[0], self.entry)
        token_maps = [jnp.zeros((request.batch, 0), jnp.int32)]
        for scale in range(self.entry):
            _, tokens, f_hats, cache = decode_scale(
                model, quantizer, modulations, f_hats, cache, scale, request, sampling
            )
            token_maps.append(tokens)
        tokens = jnp.concatenate(token_maps, axis=1)
        return Begun(tokens=tokens, f_hats=f_hats, noise=request.noise)

    def finish(
        self,
        model: VAR,
        quantizer: Quantizer,
        begun: Begun,
        request: Request,
        sampling: TokenSampling,
    ) -> Decoded:
        """The scales from ``entry`` on."""
        pyramid, f_hats, token_maps = model.config.pyramid, begun.f_hats, [begun.tokens]
        request = request.replace(noise=begun.noise)
        if self.entry < pyramid.num_scales:
            modulations = class_modulations(model, request, sampling)
            cache = model.make_cache(modulations.condition.shape[0])
            entry_scale = Window(self.entry, self.entry + 1)
            if self.mask == 0:
                hidden, entering = pyramid.offsets[self.entry], entry_scale
                mask = _without_prefix(pyramid, self.entry, hidden)
            else:
                hidden, entering = 0, Window(0, self.entry + 1)
                mask = entry_mask(pyramid, self.entry, self.mask)
            logits, cache = forward_window(
                model,
                quantizer,
                modulations,
                f_hats,
                cache,
                entering,
                request,
                sampling,
                mask=mask,
                logits_of=entry_scale,
            )
            tokens = draw_tokens(logits, request, sampling, pyramid, entry_scale)
            f_hats = after_scale(quantizer, f_hats, logits, tokens, self.entry, request, sampling)
            token_maps.append(tokens)
            for scale in range(self.entry + 1, pyramid.num_scales):
                _, tokens, f_hats, cache = decode_scale(
                    model,
                    quantizer,
                    modulations,
                    f_hats,
                    cache,
                    scale,
                    request,
                    sampling,
                    mask=_without_prefix(pyramid, scale, hidden),
                )
                token_maps.append(tokens)
        return Decoded(tokens=jnp.concatenate(token_maps, axis=1), f_hats=f_hats)


def _without_prefix(pyramid: ScalePyramid, scale: int, hidden: int) -> np.ndarray | None:
    """Hides the first ``hidden`` positions from a scale, bool [side**2, keys]; None hides none."""
    if hidden == 0:
        return None
    seen = np.arange(pyramid.offsets[scale + 1]) >= hidden
    return np.broadcast_to(seen[None], (pyramid.lengths[scale], seen.size))
