"""sequence_padding pads as bert4keras' does, keeps dtypes, and refuses what does not fit together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfloader import DataError, sequence_padding

SEQUENCES = st.lists(st.lists(st.integers(-(2**40), 2**40), max_size=9), min_size=1, max_size=6)


def padded_by_hand(sequences, length, value, mode):
    rows = []
    for sequence in sequences:
        row = sequence[:length]
        gap = [value] * (length - len(row))
        rows.append(gap + row if mode == "pre" else row + gap)
    return rows


@given(SEQUENCES, st.none() | st.integers(0, 12), st.integers(-5, 5), st.sampled_from(["post", "pre"]))
def test_padding_is_what_one_would_do_by_hand(sequences, length, value, mode):
    found = sequence_padding(sequences, length, value, mode=mode)
    longest = max(map(len, sequences)) if length is None else length
    assert found.tolist() == padded_by_hand(sequences, longest, value, mode)


def test_too_long_sequences_lose_their_end_in_both_modes():
    assert sequence_padding([[1, 2, 3]], 2).tolist() == [[1, 2]]
    assert sequence_padding([[1, 2, 3]], 2, mode="pre").tolist() == [[1, 2]]


def test_two_dimensions_are_padded_each_to_its_own_longest():
    one, two = np.arange(6).reshape(1, 6), np.arange(6).reshape(3, 2)
    found = sequence_padding([one, two], seq_dims=2, value=-1)
    assert found.shape == (2, 3, 6)
    np.testing.assert_array_equal(found[0, :1], one)
    np.testing.assert_array_equal(found[1, :, :2], two)
    assert (found == -1).sum() == 2 * 3 * 6 - 12


def test_lengths_of_two_dimensions_may_be_given_apart_or_as_one():
    matrices = [np.ones((1, 5)), np.ones((4, 2))]
    assert sequence_padding(matrices, length=[3, 2], seq_dims=2).shape == (2, 3, 2)
    assert sequence_padding(matrices, length=6, seq_dims=2, mode="pre").sum() == 13


def test_dimensions_behind_the_padded_ones_stay():
    found = sequence_padding([np.ones((2, 3)), np.zeros((1, 3)), []], value=7)
    assert found.shape == (3, 2, 3)
    np.testing.assert_array_equal(found[1], [[0] * 3, [7] * 3])
    np.testing.assert_array_equal(found[2], np.full((2, 3), 7))


@pytest.mark.parametrize(
    ("sequences", "value", "dtype"),
    [
        ([[1], [2, 3]], 0, "int64"),
        ([[1, 2], []], 0, "int64"),
        ([np.array([1], "int32"), np.array([2, 3], "int32")], 0, "int32"),
        ([np.array([1], "int32"), [2]], 0, "int64"),
        ([[1], [0.5]], 0, "float64"),
        ([np.ones(2, "float32")], -np.inf, "float32"),
        ([np.ones(2, "float16")], np.nan, "float16"),
        ([np.ones(2, bool), [True]], 0, "bool"),
        ([np.ones(2, "uint8")], -1, "int16"),
        ([np.ones(2, "int32")], -np.inf, "float64"),
        ([[1, 2], [3]], 0.5, "float64"),
    ],
)
def test_the_dtype_is_that_of_the_inputs_unless_it_cannot_hold_the_value(sequences, value, dtype):
    found = sequence_padding(sequences, 3, value)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found[0, -1], value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([],), "no sequences"),
        (([[1], [[2]]],), r"inputs\[1\]: int64 of shape \(1, 1\)"),
        (([1, 2],), r"inputs\[0\]: int64 of shape \(\)"),
        (([np.ones((2, 3)), np.ones((2, 4))],), r"shape \(3,\) behind.*\n.*\n.*inputs\[1\]: float64 of shape \(2, 4\)"),
        (([[[1], [2, 3]]],), r"inputs\[0\]: not a regular array"),
        ((["abc"],), r"inputs\[0\]: <U3"),
        (([[1, None]],), r"inputs\[0\]: object"),
        (([[1]], 1, 0, 2), "2 dimensions to pad"),
        (([[1]], 1, 0, 1, "both"), "post, pre; found 'both'"),
    ],
)
def test_what_does_not_fit_together_is_refused(arguments, named):
    with pytest.raises(DataError, match=named):
        sequence_padding(*arguments)
