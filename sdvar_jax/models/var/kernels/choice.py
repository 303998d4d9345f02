"""Which kernels run a model here."""

from __future__ import annotations

import importlib.util

import jax
from flax import nnx

from sdvar_jax.config import DTypePolicy, VARConfig
from sdvar_jax.errors import SdvarError
from sdvar_jax.models.kernels import AUTO, FUSED, KERNELS, REFERENCE, SCANNED, is_tile
from sdvar_jax.models.var.stacked import StackedBlocks
from sdvar_jax.models.var.transformer import VAR

_TRIED = "9.0"
"""Compute capability of the GPUs that the kernels were tuned on (H100, H200)."""

_LANGUAGE = "jax.experimental.pallas.triton"
"""What the kernels are written in; jax 0.12 says that a later version will not have it."""

_SMALL = 10**8
"""Parameters of the blocks up to which a CPU's first picture waits longer for the compiler."""


def supported(config: VARConfig, dtypes: DTypePolicy) -> bool:
    """Whether the kernels can run a model of these shapes."""
    return (
        is_tile(config.head_dim)
        and config.width % 64 == 0
        and config.mlp_width % 64 == 0
        and dtypes.compute in ("bfloat16", "float16")
    )


def choose_kernels(wanted: str, config: VARConfig, dtypes: DTypePolicy, *, devices: int = 1) -> str:
    """What of ``KERNELS`` a model runs with.

    Args:
      wanted: one of ``KERNELS``, or "auto": the fused kernels wherever they can run, and for
        small models on a CPU the loop over blocks.
      config: the model's shapes.
      dtypes: the model's.
      devices: that a run is spread over; the kernels run on one.

    Raises:
      SdvarError: the name is unknown, or the fast path was asked for and cannot run here.
    """
    if wanted not in (AUTO, *KERNELS):
        raise SdvarError(f"unknown kernels {wanted!r}; use one of {', '.join((AUTO, *KERNELS))}")
    if wanted not in (AUTO, FUSED):
        return wanted
    first = jax.devices()[0]
    reason = None
    if first.platform != "gpu" or "nvidia" not in first.device_kind.lower():
        reason = f"need an NVIDIA GPU, and this is {first.device_kind}"
    elif wanted == AUTO and first.compute_capability != _TRIED:
        reason = f"were tried on compute capability {_TRIED}, not {first.compute_capability}"
    elif devices != 1:
        reason = f"run on one device, and these are {devices}"
    elif importlib.util.find_spec(_LANGUAGE) is None:
        reason = f"need {_LANGUAGE}, which jax {jax.__version__} does not have"
    elif not supported(config, dtypes):
        reason = (
            "need bfloat16 or float16 and widths that 64 divides, "
            f"and this is {dtypes.compute} of width {config.width}"
        )
    if reason is None:
        return FUSED
    if wanted == FUSED:
        raise SdvarError(f"the fused kernels {reason}; use --kernels {REFERENCE} or {AUTO}")
    parameters = 12 * config.depth * config.width**2
    small = first.platform == "cpu" and devices == 1 and parameters <= _SMALL
    return SCANNED if small else REFERENCE


def with_kernels(model: VAR, kernels: str) -> VAR:
    """The same model (its arrays are shared), running with ``kernels``."""
    copy = nnx.merge(*nnx.split(model))
    copy.kernels = kernels
    return copy


def running_with(wanted: str, model: VAR, *, devices: int = 1) -> VAR:
    """The same model with the kernels that are wanted and can run it, see ``choose_kernels``."""
    return with_kernels(model, choose_kernels(wanted, model.config, model.dtypes, devices=devices))


def prepared(model: VAR) -> VAR:
    """The model as its programs hold it: with stacked blocks where it runs in a loop over them."""
    if model.kernels != SCANNED:
        return model
    copy = with_kernels(model, SCANNED)
    copy.blocks = StackedBlocks(model.blocks)
    return copy
