"""A window's query, mask, logits and tokens: every part by itself."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import (
    PYRAMID,
    QUICK_COMPILE,
    VOCAB,
    tiny_quantizer,
    tiny_request,
    tiny_target,
)

from sdvar_jax.decoding import ForcedTokens, TokenSampling
from sdvar_jax.decoding.window import (
    Window,
    apply_forced,
    build_query,
    class_modulations,
    draw_tokens,
    forward_window,
    guide_window,
    split_by_scale,
    window_mask,
)
from sdvar_jax.models import KVCache, block_causal_mask
from sdvar_jax.sampling import gumbel_noise

SCALES = PYRAMID.num_scales
BATCH = 2
LABELS = (1, 3)
GUIDED = TokenSampling(guided_until=SCALES, filtering=False)
LATER = Window(1, SCALES)
WHOLE = Window(0, SCALES)


def random_tokens(seed=0, batch=BATCH):
    shape = (batch, PYRAMID.total_length)
    return np.random.default_rng(seed).integers(0, VOCAB, shape).astype(np.int32)


def maps(tokens):
    return tuple(np.split(tokens, PYRAMID.offsets[1:-1], axis=1))


@functools.partial(jax.jit, compiler_options=QUICK_COMPILE)
def after_each_scale(maps):
    return tiny_quantizer().f_hats(maps)


def f_hats_of(tokens):
    """f_hat before each scale and after the last [num_scales + 1, ...]."""
    after = after_each_scale(maps(tokens))
    return jnp.concatenate([jnp.zeros_like(after[:1]), after])


@functools.partial(jax.jit, static_argnames=("window", "rows"), compiler_options=QUICK_COMPILE)
def query(f_hats, window, rows):
    modulations = class_modulations(tiny_target(), tiny_request(LABELS), GUIDED)
    return build_query(tiny_target(), tiny_quantizer(), modulations, f_hats, window, rows)


@functools.partial(
    jax.jit, static_argnames=("window", "logits_of", "sampling"), compiler_options=QUICK_COMPILE
)
def forward(f_hats, cache, window, logits_of=None, sampling=GUIDED):
    request = tiny_request(LABELS)
    modulations = class_modulations(tiny_target(), request, GUIDED)
    return forward_window(
        tiny_target(),
        tiny_quantizer(),
        modulations,
        f_hats,
        cache,
        window,
        request,
        sampling,
        logits_of=logits_of,
    )


def empty_cache():
    return KVCache.make(tiny_target().config, 2 * BATCH, jnp.float32)


def array(param):
    return np.asarray(param[...])


def embedding_by_hand(f_hats, scale):
    """The input of a later scale as the model is defined: of f_hat, at the scale's own places."""
    model, place = tiny_target(), PYRAMID.window(scale, scale + 1)
    resized = np.asarray(tiny_quantizer().scale_input(f_hats[scale], scale))
    word = resized @ array(model.word_embed.kernel) + array(model.word_embed.bias)
    return word + array(model.pos_embed)[place] + array(model.scale_embed)[scale]


class TestQuery:
    @pytest.mark.parametrize("start", [1, 2])
    def test_positions_and_levels_are_those_of_the_scales_themselves(self, start):
        f_hats = f_hats_of(random_tokens())
        built = query(f_hats, Window(start, SCALES), BATCH)
        wanted = [embedding_by_hand(f_hats, scale) for scale in range(start, SCALES)]
        np.testing.assert_allclose(built, np.concatenate(wanted, axis=1), atol=1e-5)

    def test_a_window_is_the_end_of_a_longer_one(self):
        f_hats = f_hats_of(random_tokens())
        whole = query(f_hats, WHOLE, 2 * BATCH)
        for start in range(1, SCALES):
            part = query(f_hats, Window(start, SCALES), 2 * BATCH)
            np.testing.assert_allclose(part, whole[:, PYRAMID.offsets[start] :], atol=1e-6)

    def test_the_first_scale_is_the_class_at_the_start_position(self):
        model = tiny_target()
        built = query(f_hats_of(random_tokens()), WHOLE, 2 * BATCH)[:, :1]
        classes = np.array([*LABELS, model.config.num_classes, model.config.num_classes])
        place = array(model.pos_start) + array(model.pos_embed)[:1] + array(model.scale_embed)[:1]
        wanted = array(model.class_embed)[classes][:, None] + place
        np.testing.assert_allclose(built, wanted, atol=1e-5)

    def test_guidance_doubles_the_batch_where_the_input_is_built(self):
        built = query(f_hats_of(random_tokens()), WHOLE, 2 * BATCH)
        assert built.shape == (2 * BATCH, PYRAMID.total_length, tiny_target().config.width)
        # The halves see the same f_hat; their class differs, and is the input of the first scale.
        np.testing.assert_array_equal(built[:BATCH, 1:], built[BATCH:, 1:])
        assert np.abs(built[:BATCH, 0] - built[BATCH:, 0]).min() > 0

    def test_the_input_of_a_scale_depends_on_all_scales_before_it(self):
        """Not on the tokens of the last one alone, as an embedding of them would."""
        tokens = random_tokens()
        other = tokens.copy()
        other[:, 0] = (other[:, 0] + 1) % VOCAB
        last = Window(SCALES - 1, SCALES)
        first, second = (query(f_hats_of(each), last, BATCH) for each in (tokens, other))
        assert np.abs(first - second).max() > 1e-2

    def test_the_input_of_a_scale_does_not_hold_its_own_tokens(self):
        tokens = random_tokens()
        for scale in range(1, SCALES):
            other = tokens.copy()
            other[:, PYRAMID.offsets[scale] :] = random_tokens(1)[:, PYRAMID.offsets[scale] :]
            first, second = (
                query(f_hats_of(each), Window(scale, scale + 1), BATCH) for each in (tokens, other)
            )
            np.testing.assert_array_equal(first, second)

    def test_no_input_follows_the_last_scale(self):
        f_hats = f_hats_of(random_tokens())
        spoilt = f_hats.at[SCALES].set(jnp.nan)
        assert np.isfinite(query(spoilt, LATER, BATCH)).all()


class TestMask:
    def test_a_window_sees_all_before_it_and_its_own_scales_in_blocks(self):
        mask = window_mask(PYRAMID, LATER)
        # Scale 1 has positions 1-4, scale 2 positions 5-13.
        assert mask.shape == (13, 14)
        assert mask[:4, :5].all()
        assert not mask[:4, 5:].any()
        assert mask[4:].all()

    def test_it_is_the_end_of_the_full_block_causal_mask(self):
        np.testing.assert_array_equal(window_mask(PYRAMID, LATER), block_causal_mask(PYRAMID)[1:])

    def test_one_scale_sees_everything_so_far(self):
        assert window_mask(PYRAMID, Window(2, 3)) is None


class TestSplit:
    def test_each_scale_gets_its_own_positions_wherever_the_window_starts(self):
        positions = np.broadcast_to(np.arange(1, 14)[None, :, None], (2 * BATCH, 13, VOCAB))
        second, third = split_by_scale(jnp.asarray(positions), PYRAMID, LATER)
        np.testing.assert_array_equal(second[0, :, 0], range(1, 5))
        np.testing.assert_array_equal(third[0, :, 0], range(5, 14))
        assert (second.shape, third.shape) == ((4, 4, VOCAB), (4, 9, VOCAB))

    def test_a_length_that_is_not_the_windows_is_noticed(self):
        for length in (PYRAMID.total_length, 12):
            with pytest.raises(AssertionError):
                split_by_scale(jnp.zeros((BATCH, length, VOCAB)), PYRAMID, LATER)

    def test_a_window_outside_the_pyramid_is_noticed(self):
        with pytest.raises(ValueError, match=r"window 2\.\.4 reaches outside 3 scales"):
            split_by_scale(jnp.zeros((BATCH, 25, VOCAB)), PYRAMID, Window(2, 4))

    @pytest.mark.parametrize(("start", "stop"), [(1, 1), (2, 1), (-1, 1)])
    def test_an_empty_or_negative_window_is_noticed(self, start, stop):
        with pytest.raises(ValueError, match="empty or negative window"):
            Window(start, stop)


class TestGuidance:
    def logits(self, rows, window):
        length = len(window.positions(PYRAMID))
        return np.random.default_rng(1).standard_normal((rows, length, VOCAB)).astype(np.float32)

    def test_each_scale_has_its_own_strength(self):
        request, logits = tiny_request(LABELS, cfg=3.0), self.logits(2 * BATCH, LATER)
        guided = guide_window(jnp.asarray(logits), request, GUIDED, PYRAMID, LATER)
        strength = np.repeat([3.0 * 1 / 2, 3.0 * 2 / 2], [4, 9])[None, :, None]
        wanted = (1 + strength) * logits[:BATCH] - strength * logits[BATCH:]
        np.testing.assert_allclose(guided, wanted, rtol=1e-5)

    def test_scales_behind_the_end_of_guidance_are_the_conditional_half(self):
        sampling = TokenSampling(guided_until=2, filtering=False)
        request, logits = tiny_request(LABELS, cfg=3.0), self.logits(2 * BATCH, LATER)
        guided = guide_window(jnp.asarray(logits), request, sampling, PYRAMID, LATER)
        np.testing.assert_array_equal(guided[:, 4:], logits[:BATCH, 4:])
        assert np.abs(guided[:, :4] - logits[:BATCH, :4]).min() > 0

    @pytest.mark.parametrize("rows", [BATCH, 3 * BATCH])
    def test_halves_that_are_missing_are_noticed(self, rows):
        logits = jnp.asarray(self.logits(rows, LATER))
        with pytest.raises(AssertionError):
            guide_window(logits, tiny_request(LABELS), GUIDED, PYRAMID, LATER)


class TestForward:
    def test_a_window_equals_its_scales_one_by_one(self):
        f_hats, cache = f_hats_of(random_tokens()), empty_cache()
        at_once, full = forward(f_hats, empty_cache(), WHOLE)
        for scale in range(SCALES):
            one, cache = forward(f_hats, cache, Window(scale, scale + 1))
            np.testing.assert_allclose(one, at_once[:, PYRAMID.window(scale, scale + 1)], atol=1e-4)
        for a, b in zip(jax.tree.leaves(cache), jax.tree.leaves(full), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)

    def test_a_window_over_the_cache_equals_teacher_forcing(self):
        model, tokens = tiny_target(), random_tokens()
        f_hats = f_hats_of(tokens)
        inputs = tiny_quantizer().teacher_forcing_inputs(f_hats[1:])
        halves = [
            np.asarray(model.teacher_forced(jnp.asarray(labels), inputs))
            for labels in (LABELS, (model.config.num_classes,) * BATCH)
        ]
        strength = 1.5 * np.repeat(np.arange(3), PYRAMID.lengths)[None, :, None] / 2
        wanted = (1 + strength) * halves[0] - strength * halves[1]
        first, cache = forward(f_hats, empty_cache(), Window(0, 1))
        later, _ = forward(f_hats, cache, LATER)
        np.testing.assert_allclose(np.concatenate([first, later], axis=1), wanted, atol=1e-3)

    def test_only_the_logits_asked_for_are_made(self):
        f_hats = f_hats_of(random_tokens())
        whole, _ = forward(f_hats, empty_cache(), WHOLE)
        last, _ = forward(f_hats, empty_cache(), WHOLE, logits_of=Window(2, 3))
        np.testing.assert_allclose(last, whole[:, 5:], atol=1e-5)

    def test_without_guidance_the_unconditional_half_is_not_run(self):
        sampling = TokenSampling(guided_until=1, filtering=False)
        f_hats = f_hats_of(random_tokens())
        _, cache = forward(f_hats, empty_cache(), Window(0, 1), sampling=sampling)
        _, cache = forward(f_hats, cache, LATER, sampling=sampling)
        for array in jax.tree.leaves(cache):
            written = np.abs(np.asarray(array)).sum(axis=(2, 3)) > 0  # [rows, total_length]
            assert written[:BATCH].all()
            assert written[BATCH:, :1].all()
            assert not written[BATCH:, 1:].any()


class TestTokens:
    def logits(self):
        shape = (BATCH, 13, VOCAB)
        return jnp.asarray(np.random.default_rng(2).standard_normal(shape), jnp.float32)

    def test_tokens_are_drawn_under_the_noise_of_their_sample_and_position(self):
        request = tiny_request(LABELS, 5, first_sample=7)
        drawn = draw_tokens(self.logits(), request, GUIDED, PYRAMID, LATER)
        noise = gumbel_noise(request.seed, request.sample_ids, jnp.arange(1, 14), VOCAB)
        np.testing.assert_array_equal(drawn, np.argmax(self.logits() + noise, axis=-1))

    def test_top_k_1_ignores_the_noise(self):
        request, sampling = tiny_request(LABELS, 5, top_k=1), TokenSampling(guided_until=SCALES)
        drawn = draw_tokens(self.logits(), request, sampling, PYRAMID, LATER)
        np.testing.assert_array_equal(drawn, np.argmax(self.logits(), axis=-1))

    def test_tokens_given_from_outside_replace_those_drawn(self):
        given, wanted = random_tokens(4), np.zeros((BATCH, PYRAMID.total_length), bool)
        wanted[0, [0, 3, 9]] = True
        request = tiny_request(LABELS, forced=ForcedTokens(jnp.asarray(given), jnp.asarray(wanted)))
        drawn = jnp.full((BATCH, 13), -5, jnp.int32)
        kept = np.asarray(apply_forced(drawn, request, PYRAMID, LATER))
        np.testing.assert_array_equal(kept[0, [2, 8]], given[0, [3, 9]])
        assert (kept == -5).sum() == BATCH * 13 - 2


def test_models_of_these_tests_attend_to_their_cache():
    """The logits of a scale change with what lies in the cache, or nothing here would show much."""
    f_hats = f_hats_of(random_tokens())
    _, cache = forward(f_hats, empty_cache(), Window(0, 1))
    with_prefix, _ = forward(f_hats, cache, Window(1, 2))
    without, _ = forward(f_hats, empty_cache(), Window(1, 2))
    assert np.abs(with_prefix - without).max() > 0.1
