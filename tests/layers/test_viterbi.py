"""Viterbi decoding against enumeration of all paths, in graphs and on arrays."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import FIXTURES
from tests.layers.chains import best_of, chains
from tfloader import ConfigError, DataError
from tfloader.data.tags import SCHEMES, tag_names, tags_to_spans
from tfloader.layers import ViterbiDecoder, tag_constraints, viterbi_decode

CASES = np.load(FIXTURES / "num_losses" / "cases.npz")
# Starts and ends of each of bert4keras' cases.
BERT4KERAS = [(None, None), ([0, 2], None), ([0], [0, 3]), ([1, 2], [2, 4]), (None, [1]), ([3], [3])]


@pytest.mark.parametrize("case", range(len(BERT4KERAS)))
def test_paths_equal_bert4keras_and_the_argument_is_left_as_it_is(case):
    starts, ends = BERT4KERAS[case]
    nodes, transitions = CASES[f"viterbi_{case}/nodes"], CASES[f"viterbi_{case}/trans"]
    before = nodes.copy()
    expected = CASES[f"viterbi_{case}/path"]
    np.testing.assert_array_equal(ViterbiDecoder(transitions, starts, ends).decode(nodes), expected)
    np.testing.assert_array_equal(nodes, before)
    tags, scores = viterbi_decode(nodes[None], transitions, starts=starts, ends=ends)
    np.testing.assert_array_equal(tags[0], expected)
    np.testing.assert_allclose(scores[0], CASES[f"viterbi_{case}/score"], rtol=1e-12)


def test_scores_and_paths_equal_the_enumerated_ones():
    inputs = np.load(FIXTURES / "num_crf" / "inputs.npz")
    expected = np.load(FIXTURES / "num_crf" / "outputs.npz")
    tags, scores = viterbi_decode(inputs["emissions"], inputs["transitions"], inputs["mask"])
    np.testing.assert_array_equal(tags, expected["plain_viterbi_path"])
    np.testing.assert_allclose(scores, expected["plain_viterbi_score"], atol=1e-6)


def subset(tags):
    return st.none() | st.lists(st.integers(0, tags - 1), min_size=1, unique=True)


@given(st.data())
def test_any_mask_and_constraints_give_the_first_of_the_best_allowed_paths(data):
    """Integer scores: most lattices have ties."""
    emissions, transitions, real = data.draw(chains(integers=True))
    tags = len(transitions)
    starts, ends = data.draw(subset(tags)), data.draw(subset(tags))
    forbidden = np.array(data.draw(st.lists(st.booleans(), min_size=tags**2, max_size=tags**2))).reshape(tags, tags)

    def allowed(path):
        pairs = itertools.pairwise(path)
        inner = not any(forbidden[a, b] for a, b in pairs)
        return inner and (starts is None or path[0] in starts) and (ends is None or path[-1] in ends)

    found, scores = viterbi_decode(emissions, transitions, real, starts, ends, forbidden)
    decoder = ViterbiDecoder(transitions, starts, ends, forbidden)
    for row, keep in enumerate(real):
        best = best_of(emissions[row, keep], transitions, allowed) if keep.any() else []
        expected = np.full(len(keep), -1)
        if best is None:
            assert scores[row] == -np.inf
            with pytest.raises(ConfigError, match="No path of tags is possible"):
                decoder.decode(emissions[row], keep)
        else:
            expected[keep] = best
            assert np.isfinite(scores[row])
            np.testing.assert_array_equal(decoder.decode(emissions[row], keep), expected)
        np.testing.assert_array_equal(found[row], expected)


def test_graphs_xla_and_arrays_agree_on_lengths_that_were_not_traced():
    random = np.random.default_rng(0)
    transitions = random.normal(size=(7, 7))
    forbidden = random.random((7, 7)) < 0.3
    signature = [tf.TensorSpec((None, None, 7), tf.float64), tf.TensorSpec((None, None), tf.bool)]

    def decode(nodes, mask):
        return viterbi_decode(nodes, transitions, mask, forbidden=forbidden)[0]

    graph = tf.function(decode, input_signature=signature)
    xla = tf.function(decode, input_signature=signature, jit_compile=True)
    decoder = ViterbiDecoder(transitions, forbidden=forbidden)
    for batch, length in [(3, 9), (1, 1)]:
        nodes, mask = random.normal(size=(batch, length, 7)), random.random((batch, length)) < 0.8
        expected = decoder.decode(nodes, mask)
        np.testing.assert_array_equal(graph(nodes, mask), expected)
        np.testing.assert_array_equal(xla(nodes, mask), expected)


def test_a_row_of_padding_only_has_no_tags_and_score_zero():
    tags, scores = viterbi_decode(np.ones((1, 3, 2)), np.ones((2, 2)), np.zeros((1, 3), bool), starts=[0])
    assert np.asarray(tags).tolist() == [[-1, -1, -1]] and float(scores[0]) == 0
    assert ViterbiDecoder(np.ones((2, 2))).decode(np.ones((3, 2)), np.zeros(3)).tolist() == [-1, -1, -1]


def test_where_no_path_is_possible_the_row_says_so():
    nodes = np.zeros((3, 2, 2))
    nodes[1] = np.nan
    nodes[2] = [[0, -np.inf], [0, 0]]
    forbidden = np.array([[True, True], [False, False]])
    tags, scores = viterbi_decode(nodes, np.zeros((2, 2)), forbidden=forbidden)
    assert np.asarray(tags).tolist() == [[1, 0], [-1, -1], [-1, -1]]
    assert float(scores[0]) == 0 and np.isnan(scores[1]) and scores[2] == -np.inf
    with pytest.raises(ConfigError, match=r"rows \[1, 2\]"):
        ViterbiDecoder(np.zeros((2, 2)), forbidden=forbidden).decode(nodes)


def test_everything_that_does_not_fit_is_reported_at_once():
    forbidden = np.zeros((2, 2))
    with pytest.raises(ConfigError) as error:
        viterbi_decode(np.zeros((1, 4, 3)), np.zeros((2, 2)), starts=[0, 3], ends=[], forbidden=forbidden)
    for part in (
        "transitions have shape (2, 2)",
        "float64 (2, 2)",
        "starts must name",
        "[3]",
        "ends must name",
        "none",
    ):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match=r"emissions have shape \(4, 3\)"):
        viterbi_decode(np.zeros((4, 3)), np.zeros((3, 3)))
    with pytest.raises(ConfigError, match=r"mask has shape \(3,\)"):
        ViterbiDecoder(np.zeros((3, 3))).decode(np.zeros((4, 3)), np.ones(3))


# ---- schemes


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("labels", [["X"], ["X", "Y"], [""]])
def test_the_constraints_of_a_scheme_allow_exactly_the_paths_that_spans_have(scheme, labels):
    names = tag_names(labels, scheme)[::-1]
    constraints = tag_constraints(names)
    for path in itertools.product(range(len(names)), repeat=3):
        allowed = path[0] in constraints["starts"] and path[-1] in constraints["ends"]
        allowed = allowed and not any(constraints["forbidden"][pair] for pair in itertools.pairwise(path))
        try:
            tags_to_spans([names[tag] for tag in path], scheme, strict=True)
        except DataError:
            assert not allowed, path
        else:
            assert allowed, path


def test_a_decoder_takes_the_constraints_of_a_scheme():
    nodes = np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 2.0]])
    free = ViterbiDecoder(np.zeros((3, 3)))
    bound = ViterbiDecoder(np.zeros((3, 3)), **tag_constraints(["O", "B-X", "I-X"]))
    assert free.decode(nodes).tolist() == [2, 2] and bound.decode(nodes).tolist() == [1, 2]


def test_names_that_no_scheme_has_are_refused_together():
    with pytest.raises(ConfigError) as error:
        tag_constraints(["O", "PER-B", "B-X", "B-X", ""])
    assert "'PER-B'" in str(error.value) and "'B-X' twice" in str(error.value) and "''" in str(error.value)


def test_a_keras_tensor_is_sent_to_the_layers_that_decode_in_a_model():
    with pytest.raises(ConfigError, match=r"Keras tensor\. In a model, `decode` of the CRF or MEMM"):
        viterbi_decode(keras.Input((None, 3)), np.zeros((3, 3)))
