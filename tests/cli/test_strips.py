"""Who made each scale."""

import numpy as np

from sdvar_jax.cli.strips import scale_makers
from sdvar_jax.decoding import DraftOnly, Handoff, TargetOnly
from sdvar_jax.result import SampleResult

RESULT = SampleResult(images=np.zeros((1, 4, 4, 3)), tokens=(), labels=np.zeros(1, np.int32))


def test_one_model_makes_all_scales():
    assert scale_makers(RESULT, TargetOnly(), 3) == ["target"] * 3
    assert scale_makers(RESULT, DraftOnly(), 3) == ["draft"] * 3


def test_a_handoff_changes_the_maker_at_its_entry():
    assert scale_makers(RESULT, Handoff(1), 3) == ["target", "draft", "draft"]
    assert scale_makers(RESULT, Handoff(2, "draft-target"), 3) == ["draft", "draft", "target"]
