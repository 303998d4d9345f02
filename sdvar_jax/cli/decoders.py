"""From the options of a command line to a decoder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sdvar_jax.cli.choices import Accept, BatchProgress, Commit, DecoderName, Order
from sdvar_jax.errors import SdvarError

if TYPE_CHECKING:
    from sdvar_jax.decoding import Decoder
    from sdvar_jax.decoding.speculative import AcceptanceRule

ADAPTIVE = "adaptive"

# Which decoder, and which acceptance rule, an option belongs to.
_DECODER_OF = {
    "gamma": DecoderName.SPECULATIVE,
    "accept": DecoderName.SPECULATIVE,
    "accept_top_k": DecoderName.SPECULATIVE,
    "match_top1": DecoderName.SPECULATIVE,
    "threshold": DecoderName.SPECULATIVE,
    "commit": DecoderName.SPECULATIVE,
    "bonus": DecoderName.SPECULATIVE,
    "recycle": DecoderName.SPECULATIVE,
    "refine": DecoderName.SPECULATIVE,
    "check_until": DecoderName.SPECULATIVE,
    "progress": DecoderName.SPECULATIVE,
    "self_draft": DecoderName.SPECULATIVE,
    "trace": DecoderName.SPECULATIVE,
    "entry": DecoderName.HANDOFF,
    "order": DecoderName.HANDOFF,
    "mask": DecoderName.HANDOFF,
}
_RULE_OF = {"accept_top_k": Accept.TOPK, "match_top1": Accept.MATCH}


@dataclasses.dataclass(frozen=True)
class DecoderOptions:
    """What the user said about decoding; None where nothing was said.

    Attributes:
      decoder: None is speculative if a draft was named, else the target alone.
      gamma: a number, numbers with commas between, or "adaptive".
      accept: acceptance rule.
      accept_top_k: k of the rule topk.
      match_top1: the rule match compares with the target's most likely token.
      threshold: the rule's dial.
      commit: whose tokens of an accepted scale are kept.
      bonus: check one scale more than was drafted.
      recycle: propose the target's own tokens again after a rejection.
      refine: corrections of a whole draft.
      check_until: scales from this one on are the draft's, unchecked.
      progress: how the samples of a batch advance.
      self_draft: no draft model.
      trace: keep what happened.
      entry: first scale of a handoff's second model.
      order: which model comes first.
      mask: attention mask of the handoff.
    """

    decoder: DecoderName | None = None
    gamma: str | None = None
    accept: Accept | None = None
    accept_top_k: int | None = None
    match_top1: bool | None = None
    threshold: float | None = None
    commit: Commit | None = None
    bonus: bool | None = None
    recycle: bool | None = None
    refine: int | None = None
    check_until: int | None = None
    progress: BatchProgress | None = None
    self_draft: bool | None = None
    trace: bool | None = None
    entry: int | None = None
    order: Order | None = None
    mask: int | None = None

    def build(self, *, draft_named: bool) -> Decoder:
        """The decoder.

        Args:
          draft_named: whether the user named a draft model.

        Raises:
          SdvarError: an option does not belong to the decoder or the rule, or is out of range.
        """
        from sdvar_jax.decoding import DraftOnly, Handoff, TargetOnly

        name = self.decoder
        if name is None:
            name = DecoderName.SPECULATIVE if draft_named else DecoderName.TARGET
        for option, belongs_to in _DECODER_OF.items():
            if getattr(self, option) is not None and name != belongs_to:
                raise SdvarError(
                    f"{_spelled(option)} belongs to --decoder {belongs_to}, and the decoder is "
                    f"{name}"
                )
        if name == DecoderName.TARGET:
            return TargetOnly()
        if name == DecoderName.DRAFT:
            return DraftOnly()
        if name == DecoderName.HANDOFF:
            if self.entry is None:
                raise SdvarError(
                    "a handoff needs --entry N, the number of scales that the first model makes"
                )
            return Handoff(entry=self.entry, **self._named("order", "mask"))
        return self._speculative()

    def _speculative(self) -> Decoder:
        from sdvar_jax.decoding.speculative import Speculative

        settings = self._named(
            "commit", "bonus", "recycle", "refine", "check_until", "progress", "trace"
        )
        if self.self_draft:
            settings["self_speculative"] = True
        if self.gamma is not None:
            settings["gamma"] = parse_gamma(self.gamma)
        return Speculative(accept=self._rule(), **settings)

    def _rule(self) -> AcceptanceRule:
        from sdvar_jax.decoding.speculative import acceptance_rule

        rule = self.accept or Accept.EXACT
        for option, belongs_to in _RULE_OF.items():
            if getattr(self, option) is not None and rule != belongs_to:
                raise SdvarError(
                    f"{_spelled(option)} belongs to --accept {belongs_to}, and the rule is {rule}"
                )
        options: dict[str, int | bool] = {}
        if self.accept_top_k is not None:
            options["k"] = self.accept_top_k
        if self.match_top1 is not None:
            options["coupled"] = not self.match_top1
        return acceptance_rule(str(rule), **options)

    def _named(self, *names: str) -> dict[str, Any]:
        """The options of these names that were given, choices as plain words."""
        values = {name: getattr(self, name) for name in names}
        return {
            name: str(value) if isinstance(value, str) else value
            for name, value in values.items()
            if value is not None
        }


def parse_gamma(text: str) -> int | tuple[int, ...] | str:
    """Gamma as a number, a number for each scale, or "adaptive"; ``SdvarError`` otherwise."""
    if text.strip() == ADAPTIVE:
        return ADAPTIVE
    try:
        numbers = tuple(int(item) for item in text.split(","))
    except ValueError:
        raise SdvarError(
            f'--gamma is a number, numbers with commas between (2,3,4) or "adaptive", got {text!r}'
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _spelled(option: str) -> str:
    """An option as the user types it."""
    if option == "match_top1":
        return "--match-top1/--match-coupled"
    if option == "bonus":
        return "--bonus/--no-bonus"
    return "--" + option.replace("_", "-")
