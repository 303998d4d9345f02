"""Requests: what one run is asked for, checked on the host."""

import numpy as np
import pytest
from decoding_models import PYRAMID, VOCAB, tiny_request

from sdvar_jax.decoding import TokenSampling, make_request
from sdvar_jax.decoding.request import with_noise
from sdvar_jax.errors import SdvarError
from sdvar_jax.sampling import SamplingConfig

SCALES = PYRAMID.num_scales


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(SdvarError, match=rf"seed must lie in 0\.\.4294967295, got {seed}"):
        tiny_request((0,), seed)


def test_the_largest_seed_is_taken():
    assert int(tiny_request((0,), 2**32 - 1).seed) == 2**32 - 1


@pytest.mark.parametrize(
    ("schedule", "wanted"), [("linear", [0.0, 2.0, 4.0]), ("constant", [4.0, 4.0, 4.0])]
)
def test_guidance_by_scale(schedule, wanted):
    config = SamplingConfig(cfg=4.0, guidance_schedule=schedule)
    request = make_request(np.array([1]), 0, config, PYRAMID)
    assert request.guidance.tolist() == wanted


def test_samples_are_numbered_through_the_whole_request():
    assert tiny_request((3, 3), first_sample=4).sample_ids.tolist() == [4, 5]


@pytest.mark.parametrize(
    ("options", "guided_until", "filtering"),
    [
        ({"cfg": 0.0}, 0, True),
        ({"cfg": 1.0}, SCALES, True),
        ({"guidance_until": 2}, 2, True),
        ({"guidance_until": 0}, 0, True),
        ({"top_k": 0, "top_p": 0.0}, SCALES, False),
    ],
)
def test_what_is_off_is_not_compiled_in(options, guided_until, filtering):
    sampling = TokenSampling.of(SamplingConfig(**options), SCALES)
    assert (sampling.guided_until, sampling.filtering) == (guided_until, filtering)


def test_an_unknown_filter_method_is_refused():
    with pytest.raises(SdvarError, match="unknown filter method 'guess'; use one of sort, search"):
        TokenSampling.of(SamplingConfig(), SCALES, "guess")


def test_the_noise_of_a_sample_is_fixed_by_seed_and_number():
    both = with_noise(tiny_request((1, 2), 5), PYRAMID, VOCAB).noise
    second = with_noise(tiny_request((4,), 5, first_sample=1), PYRAMID, VOCAB).noise
    other = with_noise(tiny_request((1, 2), 6), PYRAMID, VOCAB).noise
    assert both.shape == (2, PYRAMID.total_length, VOCAB)
    np.testing.assert_array_equal(second[0], both[1])
    assert np.all(both[0] != both[1])
    assert np.all(both != other)
