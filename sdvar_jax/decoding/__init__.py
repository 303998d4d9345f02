"""Decoders: from class labels to token maps. They never reach into training."""

from sdvar_jax.decoding.base import Decoded, Decoder, DecodingModels
from sdvar_jax.decoding.handoff import Handoff
from sdvar_jax.decoding.request import ForcedTokens, Request, TokenSampling, make_request
from sdvar_jax.decoding.single import DraftOnly, TargetOnly
from sdvar_jax.decoding.speculative import Speculative
from sdvar_jax.decoding.statistics import DecodingStatistics

__all__ = [
    "Decoded",
    "Decoder",
    "DecodingModels",
    "DecodingStatistics",
    "DraftOnly",
    "ForcedTokens",
    "Handoff",
    "Request",
    "Speculative",
    "TargetOnly",
    "TokenSampling",
    "make_request",
]
