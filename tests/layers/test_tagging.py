"""What the tagging layers share: labels, bad input, metrics over batches, and the link from a loss to its layer."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import ConfigError
from tfloader.errors import LossError
from tfloader.layers import (
    ConditionalRandomField,
    GlobalPointer,
    MaximumEntropyMarkovModel,
    ViterbiDecoder,
    viterbi_decode,
)

LAYERS = [ConditionalRandomField, MaximumEntropyMarkovModel]
RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(3, 4, 5)).astype("float32")
TAGS = RANDOM.integers(0, 5, (3, 4))
REAL = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], bool)

each_layer = pytest.mark.parametrize("kind", LAYERS, ids=lambda kind: kind.__name__)


def one_hot(tags):
    return np.eye(5, dtype="float32")[tags]


@each_layer
@pytest.mark.parametrize("form", [lambda tags: tags[:, :, None], lambda tags: tags.astype("float32"), one_hot])
def test_labels_may_be_ids_or_one_hot_rows(kind, form):
    layer = kind()
    scores = layer(SCORES, mask=REAL)
    expected = layer.sequence_losses(TAGS, scores)
    np.testing.assert_array_equal(layer.sequence_losses(form(TAGS), scores), expected)
    np.testing.assert_array_equal(layer.viterbi_hits(form(TAGS), scores), layer.viterbi_hits(TAGS, scores))


@each_layer
@pytest.mark.parametrize("junk", [-100, 5, 10**6])
def test_labels_at_padding_may_be_anything(kind, junk):
    layer = kind()
    scores = layer(SCORES, mask=REAL)
    expected = layer.sequence_losses(TAGS, scores)
    np.testing.assert_array_equal(layer.sequence_losses(np.where(REAL, TAGS, junk), scores), expected)
    rows = np.where(REAL[:, :, None], one_hot(TAGS), 0)
    np.testing.assert_array_equal(layer.sequence_losses(rows, scores), expected)


def wrong(value):
    tags = TAGS.astype(np.result_type(TAGS, value))
    tags[1, 0] = value
    return tags


WRONG = {
    "negative": wrong(-1),
    "too large": wrong(5),
    "no integer": wrong(1.5),
    "nan": wrong(np.nan),
    "no tag": one_hot(TAGS) * (np.arange(3) != 1)[:, None, None].astype("float32"),
    "smoothed": one_hot(TAGS) * 0.9 + 0.02,
}


@each_layer
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_label_at_a_real_position_stops_and_says_where(kind, case):
    layer = kind(name="tagger")
    scores = layer(SCORES, mask=REAL)
    row = 0 if case == "smoothed" else 1
    message = rf"tagger: a label is neither an id from 0 to 4 nor a one-hot row\. Its place and value:\W+{row} 0\W"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        layer.sequence_losses(WRONG[case], scores)
    with pytest.raises(tf.errors.InvalidArgumentError, match="tagger"):
        tf.function(layer.sequence_losses)(tf.constant(WRONG[case]), scores)


@each_layer
@pytest.mark.parametrize(
    ("labels", "scores", "problem"),
    [
        (TAGS, SCORES[:, :, :4], "the scores have 4 tags, the layer has 5"),
        (np.zeros((3, 4, 6)), SCORES, r"labels have shape \(3, 4, 6\)"),
        (TAGS[:, :3], SCORES, "labels have length 3, the scores 4"),
        (TAGS[0], SCORES, r"labels have shape \(4,\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(kind, labels, scores, problem):
    layer = kind()
    layer.build((None, None, 5))
    with pytest.raises(ConfigError, match=problem):
        layer.sequence_losses(labels, scores)


@each_layer
def test_what_cannot_be_tagged_is_refused(kind):
    for shape in [(None, 5), (None, None, None), (None, None, 1)]:
        with pytest.raises(ConfigError, match="at least 2 tags"):
            kind().build(shape)
    for mask in (REAL[:, :3], REAL[:, :, None], REAL[:1]):
        with pytest.raises(ConfigError, match="mask has shape"):
            kind()(SCORES, mask=mask)


@each_layer
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_float32_scores_are_not_rounded_on_their_way_through_a_mixed_layer(kind, policy):
    layer = kind(dtype=policy)
    found = layer(SCORES, mask=REAL)
    assert found.dtype == "float32"
    np.testing.assert_array_equal(np.asarray(found)[REAL], SCORES[REAL])


class Transitions(keras.layers.Layer):
    def __init__(self, tagger, **kwargs):
        super().__init__(**kwargs)
        self.tagger = tagger

    def call(self, x):
        return self.tagger.transitions


@each_layer
def test_transitions_are_not_rounded_where_another_layer_in_mixed_precision_uses_them(kind):
    tagger = kind(lr_multiplier=3)
    tagger.build((None, None, 5))
    found = Transitions(tagger, dtype="mixed_float16")(SCORES)
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found, tagger.transitions)


@each_layer
def test_sample_weights_are_one_number_a_sequence(kind):
    layer = kind()
    scores = layer(SCORES, mask=REAL)
    weights = np.array([2.0, 0.0, 1.0], "float32")
    expected = (weights * np.asarray(layer.sequence_losses(TAGS, scores))).mean()
    for form in (weights, weights[:, None]):
        assert float(layer.sparse_loss(TAGS, scores, sample_weight=form)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ConfigError, match="pass a mask"):
        layer.sparse_loss(TAGS, scores, sample_weight=np.ones((3, 4)))


@each_layer
def test_accuracies_count_every_real_position_of_all_batches_once(kind):
    layer = kind()
    marked = layer(SCORES, mask=REAL)
    for metric, hits in [(layer.viterbi_accuracy, layer.viterbi_hits), (layer.sparse_accuracy, layer.greedy_hits)]:
        expected = np.asarray(hits(TAGS, marked))[REAL].mean()
        for row in range(3):
            metric.update_state(TAGS[row : row + 1], marked[row : row + 1])
        assert float(metric.result()) == pytest.approx(expected, rel=1e-6)
        metric.reset_state()
        metric.update_state(TAGS, marked, sample_weight=np.array([0.0, 0.0, 1.0]))
        assert float(metric.result()) == pytest.approx(np.asarray(hits(TAGS, marked))[2].mean(), rel=1e-6)


def test_the_crfs_greedy_accuracy_is_that_of_the_highest_scores():
    layer = ConditionalRandomField()
    expected = (SCORES.argmax(axis=-1) == TAGS)[REAL].mean()
    assert float(layer.sparse_accuracy(TAGS, layer(SCORES, mask=REAL))) == pytest.approx(expected)


@each_layer
def test_a_saved_model_with_both_names_of_loss_and_accuracy_evaluates_the_same(kind, tmp_path):
    inputs = keras.Input((None, 5))
    layer = kind(lr_multiplier=3)
    model = keras.Model(inputs, layer(inputs))
    model.compile(loss=layer.dense_loss, metrics=[layer.dense_accuracy, layer.viterbi_accuracy])
    expected = model.evaluate(SCORES, one_hot(TAGS), verbose=0, return_dict=True)
    assert set(expected) == {"loss", "dense_accuracy", "viterbi_accuracy"}
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[-1].lr_multiplier == 3
    assert again.evaluate(SCORES, one_hot(TAGS), verbose=0, return_dict=True) == pytest.approx(expected)


def test_a_loss_that_lost_its_layer_says_so():
    config = keras.saving.serialize_keras_object(ConditionalRandomField().sparse_loss)
    with pytest.raises(ConfigError, match="compile the model again"):
        keras.saving.deserialize_keras_object(config)(TAGS, SCORES)
    with pytest.raises(ConfigError, match="never called"):
        ConditionalRandomField().sparse_loss(TAGS, SCORES)


@each_layer
def test_tags_are_the_output_of_a_model_that_can_be_saved(kind, tmp_path):
    inputs = keras.Input((None, 5))
    layer = kind(name="tagger")
    model = keras.Model(inputs, layer(inputs))
    decoded = keras.Model(inputs, layer.decode(model.output))
    assert decoded.output_shape == (None, None) and decoded.output.dtype == "int32"
    expected = layer.decode(model.predict_on_batch(SCORES))
    np.testing.assert_array_equal(decoded.predict_on_batch(SCORES), expected)
    decoded.save(tmp_path / "decoded.keras")
    again = keras.saving.load_model(tmp_path / "decoded.keras")
    np.testing.assert_array_equal(again.predict_on_batch(SCORES), expected)


@each_layer
def test_ragged_scores_of_batches_of_different_lengths_decode_as_each_batch_does(kind):
    layer = kind()
    batches = [layer(SCORES[:2], mask=REAL[:2]), layer(SCORES[:1, :2]), layer(SCORES[2:])]
    ragged = tf.concat([tf.RaggedTensor.from_tensor(batch) for batch in batches], axis=0)
    expected = np.full((4, 4), -1)
    for row, tags in zip((slice(0, 2), slice(2, 3), slice(3, 4)), map(layer.decode, batches), strict=True):
        expected[row, : tags.shape[1]] = tags
    np.testing.assert_array_equal(layer.decode(ragged), expected)
    transitions = np.asarray(layer.transitions)
    padded = ragged.to_tensor(-1e38)
    np.testing.assert_array_equal(viterbi_decode(ragged, transitions)[0], viterbi_decode(padded, transitions)[0])
    decoder = ViterbiDecoder(transitions)
    np.testing.assert_array_equal(decoder.decode(ragged), decoder.decode(padded))


def test_class_weights_are_refused_for_sequences_of_labels():
    model, weights = compiled_crf(), {0: 1.0, 1: 2.0}
    for _ in range(2):  # the second time the step is traced already, for sample_weight
        with pytest.raises(LossError, match="position of its largest label"):
            model.fit(SCORES, TAGS, class_weight=weights, verbose=0)
        with pytest.raises(LossError, match="position of its largest label"):
            model.train_on_batch(SCORES, TAGS, class_weight=weights)
        assert np.isfinite(model.fit(SCORES, TAGS, sample_weight=np.ones(3), verbose=0).history["loss"][0])


def test_labels_and_weights_keep_their_number_of_axes_or_are_refused():
    model = compiled_crf()
    model.fit(SCORES, TAGS, sample_weight=np.ones(3), verbose=0)
    with pytest.raises(LossError, match="sparse_loss: y has another number of axes"):
        model.fit(SCORES, TAGS[..., None], sample_weight=np.ones(3), verbose=0)
    with pytest.raises(LossError, match="sparse_loss: sample_weight has another number of axes"):
        model.fit(SCORES, TAGS, sample_weight=np.ones((3, 1)), verbose=0)
    model.fit(SCORES, TAGS, sample_weight=np.ones(3), verbose=0)


def compiled_crf():
    inputs = keras.Input((None, 5))
    layer = ConditionalRandomField()
    model = keras.Model(inputs, layer(inputs))
    model.compile("sgd", layer.sparse_loss)
    return model


@pytest.mark.parametrize("kind", [*LAYERS, functools.partial(GlobalPointer, 2, 4)])
def test_a_mask_that_was_lost_on_the_way_is_said_when_the_model_is_built(kind):
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 5, mask_zero=True)(tokens)
    with pytest.warns(UserWarning, match=r"takes padding for real positions: 'tanh\w*' lost the mask"):
        kind()(keras.layers.Dense(5)(keras.ops.tanh(x)))
    kind()(x)
    kind()(keras.ops.tanh(x), mask=tokens != 0)
    kind()(keras.ops.tanh(keras.Input((None, 5))))
