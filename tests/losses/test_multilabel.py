"""Multilabel cross-entropy against bert4keras' numbers and sums written out."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import FIXTURES
from tfloader import losses

CASES = np.load(FIXTURES / "num_losses" / "cases.npz")


def by_hand(labels, scores):
    """One row of soft labels, in float64."""
    negative = [(1 - t) * np.exp(s) for t, s in zip(labels, scores, strict=True) if np.isfinite(s)]
    positive = [t * np.exp(-s) for t, s in zip(labels, scores, strict=True) if np.isfinite(s)]
    return np.log1p(sum(negative)) + np.log1p(sum(positive))


@pytest.mark.parametrize("case", ["multilabel_hard_0", "multilabel_hard_1", "multilabel_soft"])
def test_the_dense_loss_equals_bert4keras(case):
    found = losses.multilabel_categorical_crossentropy(CASES[f"{case}/x_true"], CASES[f"{case}/x_pred"])
    np.testing.assert_allclose(found, CASES[f"{case}/out"], atol=2e-6)


def test_the_dense_loss_of_a_pointer_equals_bert4keras_and_ignores_minus_infinity():
    labels, scores = CASES["multilabel_masked/x_true"], CASES["multilabel_masked/x_pred"]
    assert np.isinf(scores).any()
    found = losses.multilabel_categorical_crossentropy(labels, scores, axis=(-2, -1))
    np.testing.assert_allclose(found, CASES["multilabel_masked/out"], atol=2e-6)
    # Even a label on a masked pair counts nowhere.
    found = losses.multilabel_categorical_crossentropy(np.where(np.isinf(scores), 1, labels), scores, axis=(-2, -1))
    np.testing.assert_allclose(found, CASES["multilabel_masked/out"], atol=2e-6)


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize("rank", ["", "_3d"])
def test_the_sparse_loss_equals_bert4keras(rank, mask_zero):
    case = f"sparse_multilabel{rank}_{int(mask_zero)}"
    found = losses.sparse_multilabel_categorical_crossentropy(
        CASES[f"{case}/x_true"], CASES[f"{case}/x_pred"], mask_zero=mask_zero
    )
    np.testing.assert_allclose(found, CASES[f"{case}/out"], atol=2e-6)


def test_soft_labels_equal_the_sums_written_out():
    random = np.random.default_rng(0)
    labels, scores = random.random((6, 9)), random.normal(size=(6, 9)) * 3
    labels[0], labels[1] = 0, 1
    found = losses.multilabel_categorical_crossentropy(labels, scores)
    np.testing.assert_allclose(found, [by_hand(*row) for row in zip(labels, scores, strict=True)], rtol=1e-12)


def test_the_sparse_loss_is_the_dense_one_of_the_same_labels():
    random = np.random.default_rng(1)
    scores = random.normal(size=(2, 3, 5, 5)).astype("float32")
    scores[:, :, :, 4] = -np.inf
    ids = random.integers(0, 4, (2, 3, 2)) * 5 + random.integers(0, 4, (2, 3, 2))
    labels = np.zeros((2, 3, 25))
    np.put_along_axis(labels, ids, 1, axis=-1)
    sparse = losses.sparse_multilabel_categorical_crossentropy(ids, scores)
    dense = losses.multilabel_categorical_crossentropy(labels.reshape(scores.shape), scores, axis=(-2, -1))
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)


def test_the_sparse_loss_stays_exact_where_one_minus_exp_would_not():
    # The negatives hold 1e-13 of all mass: 1 - exp(.) is 0 in float32, and 4e-4 wrong even in float64.
    scores = np.array([[30.0, 0.0, -1.0]])
    found = losses.sparse_multilabel_categorical_crossentropy(np.array([[0]]), scores)
    np.testing.assert_allclose(found, [by_hand([1, 0, 0], scores[0])], rtol=1e-12)


def test_a_label_that_no_class_has_is_an_error():
    for bad in (-1, 3):
        with pytest.raises(tf.errors.InvalidArgumentError, match="A label is not a whole number from 0"):
            losses.sparse_multilabel_categorical_crossentropy(np.array([[bad]]), np.zeros((1, 3), "float32"))


def test_a_pointer_model_trains_on_padded_rows_of_ids():
    inputs = keras.Input((4, 3))
    scores = keras.layers.Lambda(lambda x: keras.ops.matmul(x, keras.ops.transpose(x, (0, 2, 1)))[:, None])(
        keras.layers.Dense(3)(inputs)
    )
    model = keras.Model(inputs, scores)
    model.compile("sgd", losses.SparseMultilabelCategoricalCrossentropy(mask_zero=True))
    x = np.random.default_rng(2).normal(size=(5, 4, 3)).astype("float32")
    y = np.array([[[6, 11]], [[1, 0]], [[0, 0]], [[15, 3]], [[7, 0]]])
    expected = np.mean(losses.sparse_multilabel_categorical_crossentropy(y, model(x), mask_zero=True))
    assert model.evaluate(x, y, verbose=0) == pytest.approx(float(expected), rel=1e-6)
    assert model.fit(x, y, epochs=20, verbose=0).history["loss"][-1] < expected
