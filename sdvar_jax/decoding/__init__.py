"""Decoders: from class labels to token maps. They never reach into training."""

from sdvar_jax.decoding.base import Decoded, Decoder, DecodingModels
from sdvar_jax.decoding.handoff import Handoff
from sdvar_jax.decoding.request import ForcedTokens, Request, TokenSampling, make_request
from sdvar_jax.decoding.single import DraftOnly, TargetOnly

__all__ = [
    "Decoded",
    "Decoder",
    "DecodingModels",
    "DraftOnly",
    "ForcedTokens",
    "Handoff",
    "Request",
    "TargetOnly",
    "TokenSampling",
    "make_request",
]
