"""The trigram that the model in the box is measured against: by hand, and against the definition, n-gram by n-gram."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kneser_ney import FALLBACK, KneserNey, discounts

VOCAB = 6
texts = st.lists(st.lists(st.integers(0, VOCAB - 2), min_size=2, max_size=12), min_size=1, max_size=12)


def test_bigrams_by_hand():
    model = KneserNey([[0, 1, 2], [0, 1, 2], [0, 1, 3]], vocab_size=4, order=2)
    # (0, 1) three times, (1, 2) twice, (1, 3) once: y = 1/3, so that 1/3, 1 and 3 are taken off.
    # 1, 2 and 3 each follow one token, which leaves the formula without numbers: 0.5 is taken off.
    unigram = np.array([0.0, 0.5, 0.5, 0.5]) / 3 + 0.5 / 4
    after_1 = np.array([0.0, 0.0, 1.0, 2 / 3]) / 3 + (1 + 1 / 3) / 3 * unigram
    expected = {0: unigram, 1: after_1, 2: unigram, 3: unigram}
    for context, row in expected.items():
        np.testing.assert_allclose(model.probabilities(context * 5 + np.arange(4)), row, rtol=1e-12)


def test_discounts_are_those_of_the_paper():
    counts = np.repeat([1, 2, 3, 4, 9], [40, 20, 10, 6, 3])
    y = 40 / (40 + 2 * 20)
    expected = [0, 1 - 2 * y * 20 / 40, 2 - 3 * y * 10 / 20, 3 - 4 * y * 6 / 10]
    np.testing.assert_allclose(discounts(counts), expected)


@pytest.mark.parametrize("counts", [[1, 1, 2], [1, 2, 3] + [4] * 9, [5]], ids=["no threes", "below zero", "no ones"])
def test_impossible_discounts_are_replaced(counts):
    np.testing.assert_array_equal(discounts(np.array(counts)), [0, *FALLBACK])


@given(texts, st.integers(2, 4))
def test_probabilities_of_all_tokens_sum_to_one_after_every_context(sequences, order):
    model = KneserNey(sequences, VOCAB, order)
    contexts = np.random.default_rng(0).integers(0, (VOCAB + 1) ** (order - 1), 20)
    seen = np.concatenate([model.grams(item) for item in sequences]) // (VOCAB + 1)
    for context in (*contexts, *seen[:20]):
        found = model.probabilities(context * (VOCAB + 1) + np.arange(VOCAB))
        assert found.sum() == pytest.approx(1, abs=1e-12) and found.min() > 0


@given(texts, texts)
def test_trigrams_are_those_of_the_definition(sequences, others):
    model = KneserNey(sequences, VOCAB)
    for sequence in [*sequences, *others]:
        expected = [
            math.log(by_definition(sequences, ["^", *sequence[:i]], sequence[i])) for i in range(1, len(sequence))
        ]
        np.testing.assert_allclose(model.log_probabilities(sequence), expected, rtol=1e-9)


def by_definition(sequences, context, token):
    """Chen & Goodman (1999), section 3: dictionaries of tuples, one level calling the next."""
    counts = [Counter(), Counter(), Counter()]
    for sequence in sequences:
        padded = ["^", *sequence]
        counts[2].update(tuple(padded[i : i + 3]) for i in range(len(padded) - 2))
    for size in (2, 1):
        before = defaultdict(set)
        for gram in counts[size]:
            before[gram[1:]].add(gram[0])
        counts[size - 1].update({gram: len(tokens) for gram, tokens in before.items()})

    def taken(size, count):
        number = [sum(value == n for value in counts[size].values()) for n in range(5)]
        if not (number[1] and number[2] and number[3]):
            return FALLBACK[min(count, 3) - 1]
        y = number[1] / (number[1] + 2 * number[2])
        found = [n - (n + 1) * y * number[n + 1] / number[n] for n in (1, 2, 3)]
        found = found if all(0 <= value <= n for n, value in enumerate(found, 1)) else FALLBACK
        return found[min(count, 3) - 1]

    def probability(size, history):
        if size < 0:
            return 1 / VOCAB
        history = tuple(history[len(history) - size :])
        shorter = probability(size - 1, history)
        following = {gram: count for gram, count in counts[size].items() if gram[:-1] == history}
        if not following:
            return shorter
        total = sum(following.values())
        count = following.get((*history, token), 0)
        own = count - taken(size, count) if count else 0.0
        return own / total + sum(taken(size, item) for item in following.values()) / total * shorter

    return probability(2, context)


def test_the_first_token_is_context_and_has_no_probability():
    model = KneserNey([[0, 1, 2]] * 5 + [[3, 0, 4]] * 5, VOCAB)
    assert len(model.log_probabilities([0, 1, 2])) == 2
    # 0 at the beginning is followed by 1, 0 behind 3 by 4.
    assert model.log_probabilities([0, 1])[0] > math.log(0.6) > model.log_probabilities([3, 0, 1])[1]


def test_n_grams_too_long_to_count_are_refused():
    with pytest.raises(ValueError, match="lower order"):
        KneserNey([[0, 1]], vocab_size=30_000, order=5)
