"""From options to decoders."""

import pytest

from sdvar_jax.cli import choices
from sdvar_jax.cli.decoders import DecoderOptions, parse_gamma
from sdvar_jax.config.dtypes import _NAMES
from sdvar_jax.decoding import DraftOnly, Handoff, TargetOnly
from sdvar_jax.decoding.handoff import ORDERS
from sdvar_jax.decoding.speculative import RULES, Match, Speculative, TopK
from sdvar_jax.decoding.speculative.decoder import COMMITS, PROGRESSES
from sdvar_jax.sampling.config import GUIDANCE_SCHEDULES


@pytest.mark.parametrize(
    ("offered", "known"),
    [
        (choices.Accept, RULES),
        (choices.Commit, COMMITS),
        (choices.BatchProgress, PROGRESSES),
        (choices.Order, ORDERS),
        (choices.GuidanceSchedule, GUIDANCE_SCHEDULES),
        (choices.DType, ["auto", *_NAMES]),
        (choices.DecoderName, [d.name for d in (TargetOnly, DraftOnly, Speculative, Handoff)]),
    ],
)
def test_every_choice_of_the_package_is_offered(offered, known):
    assert {str(choice) for choice in offered} == set(known)


def test_a_named_draft_is_used():
    assert DecoderOptions().build(draft_named=False) == TargetOnly()
    assert DecoderOptions().build(draft_named=True) == Speculative()


def test_what_is_not_said_keeps_its_default():
    options = DecoderOptions(decoder=choices.DecoderName.SPECULATIVE)
    assert options.build(draft_named=False) == Speculative()


def test_every_option_reaches_the_decoder():
    options = DecoderOptions(
        decoder=choices.DecoderName.SPECULATIVE,
        gamma="1,2,3",
        accept=choices.Accept.MATCH,
        match_top1=True,
        commit=choices.Commit.DRAFT,
        bonus=False,
        recycle=True,
        check_until=3,
        progress=choices.BatchProgress.MINIMUM,
        trace=True,
    )
    assert options.build(draft_named=True) == Speculative(
        gamma=(1, 2, 3),
        accept=Match(coupled=False),
        commit="draft",
        bonus=False,
        recycle=True,
        check_until=3,
        progress="minimum",
        trace=True,
    )


def test_a_refinement_keeps_the_targets_tokens():
    options = DecoderOptions(decoder=choices.DecoderName.SPECULATIVE, refine=2)
    assert options.build(draft_named=True) == Speculative(refine=2)


def test_options_of_rules_and_handoffs():
    topk = DecoderOptions(accept=choices.Accept.TOPK, accept_top_k=3).build(draft_named=True)
    assert topk == Speculative(accept=TopK(k=3))
    handoff = DecoderOptions(
        decoder=choices.DecoderName.HANDOFF, entry=2, order=choices.Order.DRAFT_TARGET, mask=0
    )
    assert handoff.build(draft_named=False) == Handoff(2, "draft-target", 0)


def test_self_drafting_needs_no_draft():
    options = DecoderOptions(decoder=choices.DecoderName.SPECULATIVE, self_draft=True)
    assert not options.build(draft_named=False).needs_draft


@pytest.mark.parametrize(
    ("text", "gamma"), [("3", 3), ("2,3, 4", (2, 3, 4)), ("adaptive", "adaptive")]
)
def test_gamma(text, gamma):
    assert parse_gamma(text) == gamma
