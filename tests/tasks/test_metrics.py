"""Metrics against their definitions, computed pair by pair."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfloader.tasks.metrics import Confusion, f1_scores, pearson, spearman

SERIES = st.lists(st.integers(-3, 3), min_size=2, max_size=8)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_f1_of_each_label_counts_what_is_found_and_what_is_there(pairs):
    right, found = (np.eye(4, dtype=bool)[list(column)] for column in zip(*pairs, strict=True))
    scores = []
    for label in range(4):
        hits = sum(a == b == label for a, b in pairs)
        precision_of, recall_of = sum(b == label for _, b in pairs), sum(a == label for a, _ in pairs)
        if precision_of + recall_of:
            precision = hits / precision_of if precision_of else 0
            recall = hits / recall_of if recall_of else 0
            scores.append(2 * precision * recall / (precision + recall) if hits else 0)
    macro, micro = f1_scores(right, found)
    np.testing.assert_allclose(macro, np.mean(scores))
    np.testing.assert_allclose(micro, np.mean([a == b for a, b in pairs]))  # one label each: accuracy


def test_f1_of_no_label_at_all_is_zero():
    assert f1_scores(np.zeros((2, 3), bool), np.zeros((2, 3), bool)) == (0, 0)


@given(SERIES.flatmap(lambda x: st.tuples(st.just(x), st.lists(st.integers(-3, 3), min_size=len(x), max_size=len(x)))))
def test_spearman_is_pearson_of_ranks_in_which_equals_share_theirs(pair):
    ranks = [[sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x] for x in pair]
    expected = 0.0 if any(len({*x}) == 1 for x in pair) else np.corrcoef(*ranks)[0, 1]
    np.testing.assert_allclose(spearman(*map(np.array, pair)), expected, atol=1e-12)


def test_pearson_is_the_correlation():
    x, y = np.random.default_rng(0).normal(size=(2, 50))
    np.testing.assert_allclose(pearson(x, y), np.corrcoef(x, y)[0, 1])


def test_a_confusion_prints_as_a_table():
    shown = str(Confusion(["bad", "good"], np.array([[3, 1], [0, 12]])))
    assert shown.splitlines() == ["       bad  good", "bad      3     1", "good     0    12"]
    assert len({*map(len, shown.splitlines())}) == 1
