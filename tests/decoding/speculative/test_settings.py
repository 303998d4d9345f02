"""Bad settings are refused before any compile, in one line that says what to do."""

import jax
import pytest
from decoding_models import PYRAMID, var_config, vqvae_config
from small_models import small_model

from sdvar_jax.config import ScalePyramid
from sdvar_jax.decoding import Handoff, Speculative, TargetOnly, TokenSampling
from sdvar_jax.decoding.speculative import KL, Exact, Match, Residual, TopK, acceptance_rule
from sdvar_jax.errors import SdvarError
from sdvar_jax.pipeline import Pipeline, check_settings
from sdvar_jax.sampling import SamplingConfig

SCALES = PYRAMID.num_scales


@pytest.fixture(autouse=True)
def nothing_is_compiled():
    compiled = []

    def listen(event, seconds, **_):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield
    jax.monitoring.unregister_event_duration_listener(listen)
    assert compiled == []


def assert_refused(make, message):
    with pytest.raises(SdvarError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0}, "gamma must be at least 1"),
        ({"gamma": -2}, "gamma must be at least 1"),
        ({"gamma": (1, -1)}, "gamma must be at least 1"),
        ({"gamma": ()}, "gamma must be at least 1"),
        ({"gamma": "many"}, "a number, a list of numbers or \"adaptive\", got 'many'"),
        ({"adaptive_gammas": ()}, "adaptive_gammas must be 0 or more"),
        ({"adaptive_gammas": (2, -1)}, "adaptive_gammas must be 0 or more"),
        ({"adaptive_overhead": -0.1}, "adaptive_overhead must not be negative"),
        ({"begin": 0}, "begin is for adaptive windows, and gamma is 3"),
        ({"gamma": "adaptive", "begin": 5}, r"begin must be 0 or lie in 2\.\.4, got 5"),
        ({"gamma": "adaptive", "at_once": True}, "begin with a known window of the draft"),
        ({"gamma": "adaptive", "begin": 0, "at_once": True}, "begin with a known window"),
        ({"self_speculative": True, "at_once": True}, "begin with a known window of the draft"),
        ({"commit": "both"}, "unknown commit 'both'; use one of target, draft"),
        ({"progress": "maximum"}, "unknown progress 'maximum'; use one of per-sample, minimum"),
        ({"refine": 0}, "refine must be at least 1"),
        ({"commit": "draft"}, "changes nothing but statistics under 'exact'"),
        ({"commit": "draft", "accept": Residual()}, "under 'residual'"),
        ({"accept": Residual(), "recycle": True}, "'residual' judges by the draft's probab"),
        ({"accept": Residual(), "refine": 2}, "'residual' judges by the draft's probab"),
        ({"accept": KL(), "self_speculative": True}, "'kl' judges by the draft's probab"),
        ({"self_speculative": True, "check_until": 2}, "self-speculation has none"),
        ({"accept": Match(), "refine": 1, "commit": "draft"}, "refine commits the target's"),
    ],
)
def test_settings_that_do_not_suit_each_other(options, message):
    assert_refused(lambda: Speculative(**options), message)


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (Speculative(gamma=SCALES + 1), "gamma must be at most 3, the number of scales, got 4"),
        (Speculative(gamma=(1, 2)), "one gamma for each of the 3 checked scales"),
        (Speculative(gamma=(1, 2, 1), check_until=2), "one gamma for each of the 2 checked"),
        (Speculative(gamma=1, check_until=0), r"check_until must lie in 1\.\.3, got 0"),
        (Speculative(gamma=1, check_until=SCALES + 1), r"check_until must lie in 1\.\.3, got 4"),
        (Handoff(-1), r"entry must lie in 0\.\.3 for a pyramid of 3 scales, got -1"),
        (Handoff(SCALES + 1), r"entry must lie in 0\.\.3"),
    ],
)
def test_settings_that_do_not_suit_the_pyramid(decoder, message):
    sampling = TokenSampling(guided_until=SCALES)
    assert_refused(lambda: decoder.validate(var_config(), sampling), message)


@pytest.mark.parametrize(
    ("rule", "threshold", "message"),
    [
        (Exact(), 0.5, r"'exact' \(every token must agree\) must lie in 1\.\.1, got 0.5"),
        (Residual(), 0.5, "'residual'"),
        (Match(), 1.5, r"'match' \(share of tokens that must agree\) must lie in 0\.\.1, got 1.5"),
        (TopK(), -0.5, "'topk'"),
        (KL(), -0.5, r"'kl' \(mean KL\(target \|\| draft\) a token in nats\) must lie in 0\.\.inf"),
    ],
)
def test_a_threshold_outside_the_range_of_its_rule(rule, threshold, message):
    assert_refused(
        lambda: check_settings(
            var_config(),
            Speculative(gamma=2, accept=rule),
            SamplingConfig(),
            has_draft=True,
            threshold=threshold,
        ),
        message,
    )


def test_unknown_rules_masks_and_orders():
    assert_refused(lambda: acceptance_rule("guess"), "unknown acceptance rule 'guess'; use one of")
    assert_refused(lambda: Handoff(1, mask=6), "unknown mask 6; use one of 0")
    assert_refused(lambda: Handoff(1, order="both"), "unknown order 'both'; use one of")


def test_more_smooth_has_no_tokens_to_check():
    sampling = TokenSampling(guided_until=SCALES, more_smooth=True)
    assert_refused(
        lambda: Speculative(gamma=2).validate(var_config(), sampling), "more_smooth feeds mixtures"
    )
    TargetOnly().validate(var_config(), sampling)


def test_a_draft_must_be_given():
    for decoder in (Speculative(gamma=2), Handoff(1)):
        assert_refused(
            lambda decoder=decoder: check_settings(
                var_config(), decoder, SamplingConfig(), has_draft=False
            ),
            f"the {decoder.name} decoder needs a draft model",
        )
    self_made = Speculative(gamma=2, self_speculative=True)
    check_settings(var_config(), self_made, SamplingConfig(), has_draft=False)


OTHER = ScalePyramid((1, 2, 4))


@pytest.mark.parametrize(
    ("draft", "difference"),
    [
        (var_config(pyramid=OTHER), "pyramid 1-2-4 and 1-2-3"),
        (var_config(vocab=4), "vocab_size 4 and 8"),
        (
            var_config(pyramid=OTHER, vocab=4),
            "pyramid 1-2-4 and 1-2-3; vocab_size 4 and 8",
        ),
    ],
)
def test_a_draft_of_another_kind(draft, difference):
    models = small_model(var_config(), 2), small_model(vqvae_config(), 1), small_model(draft, 3)
    assert_refused(
        lambda: Pipeline(*models),
        f"draft and the target do not belong together; {difference}",
    )


def test_a_vqvae_of_another_kind():
    models = small_model(var_config(), 2), small_model(vqvae_config(OTHER), 1)
    assert_refused(lambda: Pipeline(*models), "VAR and the VQVAE do not belong together; pyramid")


@pytest.mark.parametrize("gamma", [[2, 1, 0], (2, 1, 0), iter((2, 1, 0))])
def test_a_gamma_a_scale_may_be_any_sequence(gamma):
    decoder = Speculative(gamma=gamma)
    assert decoder == Speculative(gamma=(2, 1, 0))
    assert hash(decoder) == hash(Speculative(gamma=(2, 1, 0)))
