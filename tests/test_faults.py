"""Wrong labels, torn pairs and ids that no table has: an error where TensorFlow can stop, NaN in the row under XLA."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import layers, losses
from tfloader.faults import checked_ids, fault, whole_ids
from tfloader.training.adversarial import Divergence

SCORES = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
CHAINS = np.random.default_rng(1).normal(size=(2, 3, 4)).astype("float32")
HIDDEN = np.zeros((2, 3, 5), "float32")


def built(layer, *shapes):
    layer.build(*shapes)
    return layer


def tagger(kind):
    return built(kind(name="tagger"), (None, None, 4))


def position(**options):
    layer = built(layers.PositionEmbedding(3, name="positions", **options), (None, None, 5))
    return lambda ids: layer(HIDDEN, ids)


r_drop = losses.RDrop(reduction=None)
token, segment = layers.TokenEmbedding(7, 5, name="tokens"), layers.SegmentEmbedding(2, 5, name="segments")
rows = built(layers.PositionEmbedding(5, name="positions"), (None, None, 5))


def smoothed(y, **options):
    return losses.smoothed_sparse_categorical_crossentropy(y, SCORES, **options)


LABEL = "A label is not a whole number from 0"
PAIR = "Was the batch shuffled"
TAG = "tagger: a label is neither an id from 0 to 3 nor a one-hot row"

# name -> (function, its argument, the error, rows of the result that are NaN)
CASES = {
    "smoothed": (smoothed, [0, 3, 1, 2], LABEL, [1]),
    "smoothed, ignoring": (functools.partial(smoothed, ignore_class=-1), [-1, -2, 1, 2], LABEL, [1]),
    "no integer": (smoothed, [0, 0.5, 1, 2], LABEL, [1]),
    "margin": (lambda y: losses.margin_softmax(y, SCORES), [0, 2, -1, 2], LABEL, [2]),
    "several": (
        functools.partial(losses.sparse_multilabel_categorical_crossentropy, y_pred=SCORES),
        [[0, 1], [1, 1], [2, 0], [0, 3]], LABEL, [3],
    ),
    "soft": (
        functools.partial(losses.multilabel_categorical_crossentropy, y_pred=SCORES),
        [[0, 1, 0.5], [1, 1, 1], [0, 2, 0], [0, 0, np.nan]], "A label is not from 0 to 1", [2, 3],
    ),
    "cosent": (lambda y: losses.cosent(y, SCORES), [1.0, 1.0, 0.0, 1.0], PAIR, [0, 1, 2, 3]),
    "simcse": (lambda y: losses.simcse(y, SCORES), [0, 0, 1, 2], PAIR, [2, 3]),
    "r_drop": (lambda y: r_drop(y, SCORES), [1, 2, 0, 0], PAIR, [0, 1]),
    "divergence": (lambda p: Divergence().call(p, p), [[0.5, 0.5], [1.0, 1.0]], "from_logits=True", [1]),
    "token": (token, [[0, 6, 3], [2, -1, 0]], "tokens: an id is not from 0 to 6", [1]),
    "segment": (segment, [[0, 2, 1], [0, 1, 0]], "segments: an id is not from 0 to 1", [0]),
    "position": (position(), [[0, 1, 2], [1, 2, 3]], "positions: an id is not from 0 to 2", [1]),
    "hierarchical position": (
        position(hierarchical=0.4), [[0, 4, 8], [1, 2, 9]], "positions: an id is not from 0 to 8", [1]
    ),
    "position of RoBERTa": (
        lambda ids: rows(HIDDEN, layers.PositionRows(1)(ids, ids)), [[0, 1, 2], [0, 1, -1]], "positions: an id", [1]
    ),
}  # fmt: skip
for kind in (layers.ConditionalRandomField, layers.MaximumEntropyMarkovModel):
    layer, y = tagger(kind), [[0, 1, 2], [3, 4, 0]]
    for method in ("sequence_losses", "greedy_hits", "viterbi_hits"):
        function = functools.partial(getattr(layer, method), emissions=CHAINS)
        CASES[f"{kind.__name__}.{method}"] = (function, y, TAG, [1])


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def test_it_is_an_error_that_names_the_rule(case):
    function, argument, message, _ = case
    for form in (function, tf.function(function)):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            form(tf.constant(argument))


def test_under_xla_it_makes_its_rows_nan_and_no_others(case):
    function, argument, _, expected = case
    found = np.asarray(tf.function(function, jit_compile=True)(tf.constant(argument)))
    found = np.isnan(found.reshape(len(found), -1)).any(axis=1)
    assert np.flatnonzero(found).tolist() == expected


def test_the_error_shows_place_and_value_of_the_first_wrong_one():
    values = np.array([[1, 2], [3, -4], [-5, 6]])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"negative\. Its place and value:\W+1 1\W+-4\D"):
        fault(values > 0, "It is negative.", values)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"negative\. Its place and value:\W+1\W+3 -4\D"):
        fault((values > 0).all(axis=1), "It is negative.", values)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_nothing_is_wrong_with_nothing(shape):
    ids, wrong = checked_ids(np.zeros(shape, "int32"), 5, "")
    assert ids.shape == wrong.shape == shape


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([0, 4, 5, -1, 2**31 - 1, -(2**31)], [1, 1, 0, 0, 0, 0]),
        (np.array([2**32 + 1, 2**40, 3]), [0, 0, 1]),
        (np.array([1.0, 1.5, np.nan, np.inf, -0.0]), [1, 0, 0, 0, 1]),
        (np.array([4, 255], "uint8"), [1, 0]),
        (np.array([False, True]), [1, 1]),
    ],
)
def test_whole_ids_are_in_range_and_tell_which_were(ids, expected):
    found, right = whole_ids(ids, 5)
    assert np.asarray(right).tolist() == [bool(item) for item in expected]
    assert found.dtype == "int32" and np.min(found) >= 0 and np.max(found) <= 4
    np.testing.assert_array_equal(np.asarray(found)[right], np.asarray(ids)[right])


def test_what_is_free_may_be_anything():
    ids, wrong = checked_ids([7, 1], 5, "", free=np.array([True, False]))
    assert not np.any(wrong) and np.asarray(ids).tolist() == [4, 1]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "float16", "float64"])
def test_ids_in_range_leave_the_embedding_as_keras_gives_it(policy):
    ours, theirs = layers.TokenEmbedding(7, 5, dtype=policy), keras.layers.Embedding(7, 5, dtype=policy)
    theirs.build()
    ours.build()
    ours.embeddings.assign(theirs.embeddings)
    ids = np.array([[0, 6, 3]])
    found, expected = ours(ids), theirs(ids)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(tf.cast(found, "float64"), tf.cast(expected, "float64"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_under_xla_a_step_with_a_wrong_id_reaches_the_weights_unless_steps_that_are_not_finite_are_left_out(wrapped):
    inputs = keras.Input((3,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(1)(layers.TokenEmbedding(7, 2)(inputs)))
    optimizer = keras.optimizers.SGD(0.1)
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer, "mse", jit_compile=True)
    before = model.get_weights()
    assert np.isnan(model.train_on_batch(np.array([[1, 2, 7]]), np.ones((1, 3, 1))))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(np.isnan(new).any(), not wrapped)
        assert not wrapped or (old == new).all()
