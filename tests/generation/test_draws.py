"""Draws: SplitMix64 against its definition, inversion against counting, and what decides a stream."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tfloader.generation import draws
from tfloader.generation.options import GenerationOptions

MASK = 2**64 - 1


def split_mix(state: int, step: int) -> int:
    """Output number `step` of the generator, by its definition."""
    z = (state + (step + 1) * 0x9E3779B97F4A7C15) & MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def test_the_definition_gives_the_published_numbers():
    assert [split_mix(1234567, step) for step in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@given(st.lists(st.integers(0, MASK), min_size=1, max_size=5), st.integers(0, 5000))
def test_uniform_numbers_are_the_high_bits_of_split_mix(states, step):
    found = draws.uniform(tf.constant(states, tf.uint64), tf.constant(step)).numpy()
    assert found.tolist() == [((split_mix(state, step) >> 11) + 1) / 2**53 for state in states]


def test_uniform_numbers_are_uniform_over_streams_and_over_steps():
    streams = np.random.SeedSequence(1).generate_state(20_000, np.uint64)
    over_streams = draws.uniform(streams, tf.constant(3)).numpy()
    over_steps = draws.uniform(np.repeat(streams[:1], 20_000), tf.range(20_000)).numpy()
    for numbers in (over_streams, over_steps):
        assert abs(np.sort(numbers) - np.linspace(0, 1, 20_000)).max() < 0.012  # Kolmogorov-Smirnov, p about 0.005


@pytest.mark.parametrize(("number", "token"), [(2.0**-53, 1), (0.24, 1), (0.26, 2), (0.49, 2), (0.51, 4), (1.0, 4)])
def test_inversion_takes_the_first_token_whose_mass_reaches_the_number(number, token):
    logits = tf.math.log([[0.0, 0.25, 0.25, 0.0, 0.5, 0.0]])
    assert draws.draw(logits, tf.constant([number], tf.float64)).numpy().tolist() == [token]


@given(st.integers(0, 999), st.floats(2.0**-53, 1))
def test_a_token_that_is_ruled_out_is_never_drawn(seed, number):
    logits = np.random.default_rng(seed).normal(0, 20, (3, 300)).astype("float32")
    logits[:, np.random.default_rng(seed).permutation(300)[:250]] = -np.inf
    chosen = draws.draw(tf.constant(logits), tf.fill([3], tf.constant(number, tf.float64))).numpy()
    assert np.isfinite(logits[range(3), chosen]).all()


def test_a_row_of_nan_gives_some_token_and_no_crash():
    assert draws.draw(tf.fill([1, 7], np.nan), tf.constant([0.5], tf.float64)).numpy()[0] in range(7)


def streams(prompts, **options):
    length = max(map(len, prompts))
    tokens = np.array([[9] * (length - len(row)) + row for row in prompts])
    real = np.array([[False] * (length - len(row)) + [True] * len(row) for row in prompts])
    return draws.streams(tokens, real, GenerationOptions.of(do_sample=True, **options)).tolist()


def test_a_stream_is_decided_by_seed_prompt_and_number():
    first, second = streams([[5, 6], [7]], seed=1)
    assert streams([[7]], seed=1) == [second] and streams([[7], [1, 2, 3], [5, 6]], seed=1)[2] == first
    assert first != second != streams([[7]], seed=2)[0]
    three = streams([[5, 6], [7]], seed=1, num_return_sequences=3)
    assert len(set(three)) == 6 and three[0] == first and three[3:] == streams([[7]], seed=1, num_return_sequences=3)


def test_equal_prompts_have_equal_streams_unless_they_have_seeds_of_their_own():
    one, same = streams([[5], [5]], seed=1)
    assert one == same
    assert streams([[5], [5]], seed=[1, 2]) == [one, streams([[5]], seed=2)[0]]


def test_without_a_seed_every_prompt_and_call_has_another_stream():
    assert len({*streams([[5], [5]]), *streams([[5], [5]])}) == 4
