"""Decoders that use one model alone: the reference, and the draft for comparison."""

from __future__ import annotations

import dataclasses

from sdvar_jax.decoding.base import Decoded, Decoder, DecodingModels
from sdvar_jax.decoding.request import Request, TokenSampling
from sdvar_jax.decoding.sequential import decode_sequential


@dataclasses.dataclass(frozen=True)
class TargetOnly(Decoder):
    """The target makes every scale: VAR as published."""

    name = "target"

    def decode(self, models: DecodingModels, request: Request, sampling: TokenSampling) -> Decoded:
        """Makes all token maps of a batch."""
        modulations = models.modulations(models.target, request, sampling)
        tokens, f_hats = decode_sequential(
            models.target, models.quantizer, modulations, request, sampling
        )
        return Decoded(tokens=tokens, f_hats=f_hats)


@dataclasses.dataclass(frozen=True)
class DraftOnly(Decoder):
    """The draft makes every scale."""

    name = "draft"

    @property
    def needs_draft(self) -> bool:
        """It is the only model used."""
        return True

    def decode(self, models: DecodingModels, request: Request, sampling: TokenSampling) -> Decoded:
        """Makes all token maps of a batch."""
        assert models.draft is not None
        modulations = models.modulations(models.draft, request, sampling)
        tokens, f_hats = decode_sequential(
            models.draft, models.quantizer, modulations, request, sampling
        )
        return Decoded(tokens=tokens, f_hats=f_hats)
