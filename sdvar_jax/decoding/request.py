"""What one decoding run is asked for, as arrays that change without a new compile."""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sdvar_jax.config import ScalePyramid
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig, guidance_by_scale, gumbel_noise
from sdvar_jax.sampling.filtering import METHODS

_MAX_SEED = 2**32 - 1


class ForcedTokens(struct.PyTreeNode):
    """Tokens given from outside (in-painting and editing by teacher forcing).

    Attributes:
      tokens: int32 [batch, total_length].
      forced: bool [batch, total_length], True where ``tokens`` replaces what the model draws.
    """

    tokens: jax.Array
    forced: jax.Array


class Request(struct.PyTreeNode):
    """One batch of samples to decode.

    Attributes:
      labels: int32 [batch].
      sample_ids: int32 [batch], the samples' numbers in the whole request: they fix the noise.
      seed: uint32 scalar.
      guidance: strength t at each scale, float32 [num_scales].
      top_k: int32 scalar, 0 keeps all.
      top_p: float32 scalar, 0 keeps all.
      threshold: float32 scalar, the acceptance rule's dial (speculative decoding).
      acceptance_seen: drafted scales accepted and judged in earlier batches, float32 [2]; what
        adaptive windows start from.
      forced: tokens given from outside, or None.
      noise: the shared Gumbel noise of all positions, float32 [batch, total_length, vocab]; None
        until ``with_noise`` fills it inside the compiled program.
    """

    labels: jax.Array
    sample_ids: jax.Array
    seed: jax.Array
    guidance: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    threshold: jax.Array
    acceptance_seen: jax.Array
    forced: ForcedTokens | None = None
    noise: jax.Array | None = None

    @property
    def batch(self) -> int:
        """Number of samples."""
        return self.labels.shape[0]


def with_noise(request: Request, pyramid: ScalePyramid, vocab_size: int) -> Request:
    """The request with its noise drawn once for the whole run, to be sliced by window.

    Drawing it in every branch and scale anew would make the same numbers, but the generator would
    be compiled as often.
    """
    positions = jnp.arange(pyramid.total_length, dtype=jnp.int32)
    noise = gumbel_noise(request.seed, request.sample_ids, positions, vocab_size)
    # The barrier keeps the compiler from fusing the generator into every reader after all.
    return request.replace(noise=jax.lax.optimization_barrier(noise))


@dataclasses.dataclass(frozen=True)
class TokenSampling:
    """What of the sampling settings is compiled in.

    Attributes:
      guided_until: scales before this one are guided; later ones run the conditional half alone.
      filtering: whether top-k or top-p is on at all.
      filter_method: how thresholds are found, see ``sampling.filtering``.
      more_smooth: feed Gumbel-softmax mixtures on.
    """

    guided_until: int
    filtering: bool = True
    filter_method: str = "sort"
    more_smooth: bool = False

    @classmethod
    def of(
        cls, config: SamplingConfig, num_scales: int, filter_method: str = "sort"
    ) -> TokenSampling:
        """The compiled-in part of ``config`` for a pyramid of ``num_scales`` scales."""
        if filter_method not in METHODS:
            raise SdvarError(
                f"unknown filter method {filter_method!r}; use one of {', '.join(METHODS)}"
            )
        until = num_scales if config.guidance_until is None else config.guidance_until
        return cls(
            guided_until=0 if config.cfg == 0 else min(until, num_scales),
            filtering=config.top_k > 0 or config.top_p > 0,
            filter_method=filter_method,
            more_smooth=config.more_smooth,
        )


def make_request(
    labels: np.ndarray,
    seed: int,
    config: SamplingConfig,
    pyramid: ScalePyramid,
    *,
    first_sample: int = 0,
    threshold: float = 1.0,
    acceptance_seen: tuple[float, float] = (0.0, 0.0),
    forced: ForcedTokens | None = None,
) -> Request:
    """Builds a request on the host.

    Args:
      labels: integers [batch].
      seed: 0 to 2**32 - 1.
      config: guidance and filtering.
      pyramid: the target's scales.
      first_sample: number of the first sample of the batch in the whole request.
      threshold: the acceptance rule's dial.
      acceptance_seen: drafted scales accepted and judged so far.
      forced: tokens given from outside.

    Raises:
      SdvarError: the seed is out of range.
    """
    if not 0 <= seed <= _MAX_SEED:
        raise SdvarError(f"the seed must lie in 0..{_MAX_SEED}, got {seed}")
    labels = np.asarray(labels, np.int32)
    chex.assert_rank(labels, 1)
    guidance = guidance_by_scale(config.cfg, pyramid.num_scales, config.guidance_schedule)
    return Request(
        labels=jnp.asarray(labels),
        sample_ids=jnp.arange(first_sample, first_sample + labels.shape[0], dtype=jnp.int32),
        seed=jnp.asarray(seed, jnp.uint32),
        guidance=jnp.asarray(guidance),
        top_k=jnp.asarray(config.top_k, jnp.int32),
        top_p=jnp.asarray(config.top_p, jnp.float32),
        threshold=jnp.asarray(threshold, jnp.float32),
        acceptance_seen=jnp.asarray(acceptance_seen, jnp.float32),
        forced=None if forced is None else jax.tree.map(jnp.asarray, forced),
    )
