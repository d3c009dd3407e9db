"""Label smoothing for integer labels against Keras' for one-hot ones."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import losses

RANDOM = np.random.default_rng(8)
LOGITS, LABELS = RANDOM.normal(size=(3, 5, 11)), RANDOM.integers(0, 11, (3, 5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_it_equals_keras_smoothing_of_one_hot_labels(smoothing):
    expected = keras.losses.categorical_crossentropy(
        np.eye(11)[LABELS], LOGITS, from_logits=True, label_smoothing=smoothing
    )
    found = losses.smoothed_sparse_categorical_crossentropy(LABELS, LOGITS, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = losses.smoothed_sparse_categorical_crossentropy(LABELS[..., None], LOGITS, smoothing)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_classes_that_do_not_exist_get_no_share():
    logits = LOGITS.copy()
    logits[..., 7] = -np.inf
    labels = np.where(LABELS >= 7, 0, LABELS)
    found = losses.smoothed_sparse_categorical_crossentropy(labels, logits)
    expected = losses.smoothed_sparse_categorical_crossentropy(labels, np.delete(logits, 7, axis=-1))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_ignored_labels_have_loss_zero_and_no_gradient():
    labels = LABELS.copy()
    labels[1, 2] = -100
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = losses.smoothed_sparse_categorical_crossentropy(labels, logits, ignore_class=-100)
    gradient = np.asarray(tape.gradient(loss, logits))
    assert float(loss[1, 2]) == 0 and not gradient[1, 2].any()
    assert np.count_nonzero(gradient.any(-1)) == 14
    with pytest.raises(tf.errors.InvalidArgumentError, match="A label is not a whole number from 0"):
        losses.smoothed_sparse_categorical_crossentropy(labels, LOGITS)


@pytest.mark.parametrize("loss", [losses.SmoothedSparseCategoricalCrossentropy(), "keras"])
def test_masked_tokens_do_not_count_in_a_model(loss):
    """Keras' own smoothing of one-hot labels honours masks as well."""
    tokens = np.array([[3, 4, 0, 0], [5, 1, 2, 0]])
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(6)(keras.layers.Embedding(6, 8, mask_zero=True)(inputs)))
    rows = losses.smoothed_sparse_categorical_crossentropy(tokens, np.array(model(tokens)))
    y = tokens
    if loss == "keras":
        loss, y = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), np.eye(6)[tokens]
    model.compile("sgd", loss)
    assert model.evaluate(tokens, y, verbose=0) == pytest.approx(np.asarray(rows)[tokens > 0].mean(), rel=1e-5)
