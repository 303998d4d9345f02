"""The words that options take. Their order is that of the help."""

from __future__ import annotations

import enum


class DType(enum.StrEnum):
    """Dtype of weights and arithmetic."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"
    FLOAT16 = "float16"


class Kernels(enum.StrEnum):
    """What runs the transformers."""

    AUTO = "auto"
    REFERENCE = "reference"
    SCANNED = "scanned"
    FUSED = "fused"


class Weights(enum.StrEnum):
    """What the matrices of the transformers' blocks are held in."""

    FLOAT = "float"
    INT8 = "int8"


class GuidanceSchedule(enum.StrEnum):
    """How guidance grows over the scales."""

    LINEAR = "linear"
    CONSTANT = "constant"


class DecoderName(enum.StrEnum):
    """Who makes the token maps."""

    TARGET = "target"
    DRAFT = "draft"
    SPECULATIVE = "speculative"
    HANDOFF = "handoff"


class Accept(enum.StrEnum):
    """When a drafted scale passes."""

    EXACT = "exact"
    RESIDUAL = "residual"
    MATCH = "match"
    TOPK = "topk"
    KL = "kl"


class Commit(enum.StrEnum):
    """Whose tokens of an accepted scale are kept."""

    TARGET = "target"
    DRAFT = "draft"


class BatchProgress(enum.StrEnum):
    """How the samples of a batch advance."""

    PER_SAMPLE = "per-sample"
    MINIMUM = "minimum"


class Order(enum.StrEnum):
    """Which model of a handoff comes first."""

    TARGET_DRAFT = "target-draft"
    DRAFT_TARGET = "draft-target"
