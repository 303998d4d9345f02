"""What every decoder takes and gives."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Generic, TypeVar

import jax
from flax import struct

from sdvar_jax.config import ScalePyramid, VARConfig
from sdvar_jax.decoding.request import Request, TokenSampling
from sdvar_jax.decoding.window import class_modulations
from sdvar_jax.models import VAR, Modulations, Quantizer


class ClassModulations(struct.PyTreeNode):
    """The class modulations of a run, made beforehand.

    Attributes:
      target: the target's.
      draft: the draft's; None where it does not run.
    """

    target: Modulations | None
    draft: Modulations | None


@dataclasses.dataclass(frozen=True)
class DecodingModels:
    """The models of a run.

    Attributes:
      target: the model whose pictures are wanted.
      quantizer: the VQVAE's quantizer, shared by both.
      draft: the small model, where the decoder needs one.
      given: their class modulations; None where they are made in the run.
    """

    target: VAR
    quantizer: Quantizer
    draft: VAR | None = None
    given: ClassModulations | None = None

    def of(self, role: str) -> VAR:
        """The target or the draft."""
        model: VAR | None = getattr(self, role)
        assert model is not None
        return model

    def modulations(self, model: VAR, request: Request, sampling: TokenSampling) -> Modulations:
        """Those of the whole run of one of the models, see ``class_modulations``."""
        if self.given is None:
            return class_modulations(model, request, sampling)
        given = self.given.target if model is self.target else self.given.draft
        assert given is not None
        return given


class Decoded(struct.PyTreeNode):
    """What a decoder made.

    Attributes:
      tokens: int32 [batch, total_length].
      f_hats: f_hat before each scale and after the last, float32 [num_scales + 1, batch, latent,
        latent, latent_channels].
      counters: statistics of decoders that have any (``speculative.state.Counters``), else None.
      trace: what happened at each target call, in debugging mode (``speculative.state.Trace``).
    """

    tokens: jax.Array
    f_hats: jax.Array
    counters: Any = None
    trace: Any = None


@dataclasses.dataclass(frozen=True)
class Decoder(abc.ABC):
    """A way of making token maps: a frozen, hashable description that is compiled in."""

    name: ClassVar[str]

    @property
    def needs_draft(self) -> bool:
        """Whether a draft model must be given."""
        return False

    @property
    def uses_draft(self) -> bool:
        """Whether the draft runs, where one is needed."""
        return self.needs_draft

    @property
    def waits(self) -> bool:
        """Whether the device decides what runs next, so that the host waits for it."""
        return False

    @property
    def default_threshold(self) -> float:
        """The dial used where the user gives none (speculative decoding)."""
        return 1.0

    def settled(
        self, pyramid: ScalePyramid, batch: int, acceptance_seen: tuple[float, float]
    ) -> Decoder:
        """The decoder of one batch, where what earlier ones saw decides what is compiled.

        Args:
          pyramid: the scales.
          batch: samples.
          acceptance_seen: drafted scales accepted and judged so far.
        """
        del pyramid, batch, acceptance_seen
        return self

    def validate(
        self, target: VARConfig, sampling: TokenSampling, threshold: float | None = None
    ) -> None:
        """Raises ``SdvarError`` where the settings do not suit the models, before any compile.

        Args:
          target: the target's shapes.
          sampling: what is compiled in.
          threshold: the dial the user gave, or None.
        """
        del target, sampling, threshold

    @abc.abstractmethod
    def decode(self, models: DecodingModels, request: Request, sampling: TokenSampling) -> Decoded:
        """Makes all token maps of a batch; pure, to be compiled."""


class Checked(struct.PyTreeNode):
    """What the first check of an optimistic decoder left.

    Attributes:
      decoded: the result, if there was no need for another.
      through: whether that is so, bool scalar.
      state: what to go on from if not; may be overwritten then.
      kept: what else there is to go on with.
    """

    decoded: Decoded
    through: jax.Array
    state: Any
    kept: Any


class OptimisticDecoder(Decoder):
    """A decoder whose first check may be its last.

    Its parts can be programs of their own that the device is given without waiting, the picture
    included. Whether there is more to do is asked while they run. Each part may overwrite the
    proposals or the state that it is given: it gives back what is needed of it.
    """

    @property
    @abc.abstractmethod
    def at_once(self) -> bool:
        """Whether the first check can be the last."""

    @abc.abstractmethod
    def propose(
        self, draft: VAR, quantizer: Quantizer, request: Request, sampling: TokenSampling
    ) -> Any:
        """What the draft makes; pure, as all parts."""

    @abc.abstractmethod
    def check(
        self, models: DecodingModels, proposals: Any, request: Request, sampling: TokenSampling
    ) -> Checked:
        """What the target says of it."""

    @abc.abstractmethod
    def go_on(
        self,
        models: DecodingModels,
        state: Any,
        kept: Any,
        request: Request,
        sampling: TokenSampling,
    ) -> tuple[Decoded, Any]:
        """The result where the check was not all, and the state behind it, of no further use."""


_Begun = TypeVar("_Begun")
"""What the first half of a decoder in halves made, a pytree."""


class DecoderInHalves(Decoder, Generic[_Begun]):
    """A decoder that asks one model first and then the other.

    Each half can be a program of its own, which is not given what the other needs.
    """

    @property
    @abc.abstractmethod
    def halves(self) -> tuple[str, str]:
        """The models of ``begin`` and ``finish``, "target" or "draft"."""

    @abc.abstractmethod
    def begin(
        self, model: VAR, quantizer: Quantizer, request: Request, sampling: TokenSampling
    ) -> _Begun:
        """What the first model makes; pure."""

    @abc.abstractmethod
    def finish(
        self,
        model: VAR,
        quantizer: Quantizer,
        begun: _Begun,
        request: Request,
        sampling: TokenSampling,
    ) -> Decoded:
        """What the second makes of it; pure."""

    def decode(self, models: DecodingModels, request: Request, sampling: TokenSampling) -> Decoded:
        """Makes all token maps of a batch, one half behind the other."""
        first, second = (models.of(role) for role in self.halves)
        begun = self.begin(first, models.quantizer, request, sampling)
        return self.finish(second, models.quantizer, begun, request, sampling)
