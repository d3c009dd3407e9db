"""Losses over pairs against loops over them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import losses
from tfloader.errors import LossError

RANDOM = np.random.default_rng(7)
VECTORS = RANDOM.normal(size=(10, 6))


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def test_cosent_equals_the_sum_over_all_pairs_of_pairs():
    labels = [2, 0, 1, 1, 5]
    cosines = [cosine(VECTORS[2 * i], VECTORS[2 * i + 1]) for i in range(5)]
    total = sum(np.exp(20 * (cosines[j] - cosines[i])) for i in range(5) for j in range(5) if labels[i] > labels[j])
    found = losses.cosent(np.repeat(labels, 2), VECTORS)
    np.testing.assert_allclose(found, np.full(10, np.log1p(total)), rtol=1e-9)
    np.testing.assert_allclose(losses.cosent(labels, np.array(cosines)), np.full(5, np.log1p(total)), rtol=1e-9)
    np.testing.assert_allclose(losses.cosent(labels, np.array(cosines)[:, None])[0], np.log1p(total), rtol=1e-9)
    assert float(losses.CoSENT()(np.repeat(labels, 2)[:, None], VECTORS)) == pytest.approx(np.log1p(total), rel=1e-5)


def test_cosent_of_equal_labels_is_zero_with_zero_gradient():
    vectors = tf.constant(VECTORS)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        loss = losses.cosent(np.ones(10), vectors)
    assert not np.any(loss)
    assert not np.any(tape.gradient(loss, vectors))


def test_simcse_equals_the_softmax_over_all_other_rows():
    expected = []
    for i in range(10):
        scores = {j: cosine(VECTORS[i], VECTORS[j]) / 0.05 for j in range(10) if j != i}
        expected.append(np.log(sum(np.exp(score) for score in scores.values())) - scores[i ^ 1])
    for y in (np.zeros(10), np.repeat(np.arange(5), 2)[:, None]):
        np.testing.assert_allclose(losses.simcse(y, VECTORS), expected, rtol=1e-9)


def divergence(p, q):
    return float(np.sum(p * np.log(p / q)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_r_drop_equals_cross_entropy_and_both_divergences():
    labels = np.repeat([1, 4, 0, 5, 2], 2)
    p = softmax(VECTORS)
    expected = []
    for i in range(10):
        both = divergence(p[i], p[i ^ 1]) + divergence(p[i ^ 1], p[i])
        expected.append(-np.log(p[i, labels[i]]) + 3.0 / 4 * both)
    found = losses.RDrop(alpha=3.0, reduction=None, dtype="float64")(labels, VECTORS)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    dense = losses.RDrop(keras.losses.CategoricalCrossentropy(from_logits=True), 3.0, reduction=None)
    np.testing.assert_allclose(dense(np.eye(6)[labels], VECTORS), expected, rtol=1e-5)


def test_r_drop_keeps_the_loss_that_it_wraps_in_its_config():
    inner = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    loss = losses.RDrop(inner, 3.0)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    labels = np.eye(6)[np.repeat([1, 4, 0, 5, 2], 2)]
    assert float(again(labels, VECTORS)) == float(loss(labels, VECTORS))
    assert float(again(labels, VECTORS)) != float(losses.RDrop(alpha=3.0)(labels.argmax(-1), VECTORS))


def test_r_drop_of_tokens_counts_masked_positions_nowhere():
    tokens = np.array([[3, 4, 0], [3, 4, 0], [5, 1, 2], [5, 1, 2]])
    inputs = keras.Input((3,), dtype="int32")
    x = keras.layers.Dropout(0.5, seed=1)(keras.layers.Embedding(6, 8, mask_zero=True)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(6)(x))
    logits = model(tokens, training=True)
    loss = losses.RDrop()
    rows = losses.RDrop(reduction=None)(tokens, np.array(logits))
    assert float(loss(tokens, logits)) == pytest.approx(np.asarray(rows)[tokens > 0].mean(), rel=1e-5)
    assert np.asarray(losses.symmetric_divergence(logits)).min() > 0  # dropout made the copies differ


@pytest.mark.parametrize(
    "inner",
    [
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
        losses.SmoothedSparseCategoricalCrossentropy(0.0, ignore_class=-1),
    ],
    ids=["Keras", "smoothed"],
)
def test_r_drop_sees_nothing_of_positions_that_its_loss_ignores(inner):
    random = np.random.default_rng(0)
    logits, labels = (
        random.normal(size=(4, 5, 3)).astype("float32"),
        np.repeat(random.integers(0, 3, (2, 5)), 2, axis=0),
    )
    labels[:, 3:] = -1
    other = np.where(labels[..., None] < 0, 7 * logits, logits)
    assert float(losses.RDrop(inner)(labels, logits)) == float(losses.RDrop(inner)(labels, other))
    shorter = losses.RDrop(inner, reduction=None)(labels[:, :3], logits[:, :3])
    np.testing.assert_allclose(losses.RDrop(inner, reduction="sum")(labels, logits), np.sum(shorter), rtol=1e-6)
    without = losses.RDrop(inner, alpha=0.0)(labels, logits)
    assert float(without) == pytest.approx(float(inner(labels, logits)), rel=1e-6)


def test_masked_classes_do_not_spoil_the_divergence():
    scores = VECTORS.copy()
    scores[:, 2] = -np.inf
    found = losses.symmetric_divergence(scores)
    np.testing.assert_allclose(found, losses.symmetric_divergence(np.delete(scores, 2, axis=1)), rtol=1e-12)


def test_an_odd_batch_is_an_error():
    with pytest.raises(LossError, match="even number of rows, found 3"):
        losses.simcse(np.zeros(3), VECTORS[:3])
    compiled = tf.function(losses.simcse, input_signature=[tf.TensorSpec([None]), tf.TensorSpec([None, 6])])
    with pytest.raises(tf.errors.InvalidArgumentError):
        compiled(np.zeros(3, "float32"), VECTORS[:3].astype("float32"))


def test_simcse_training_learns_what_partners_share():
    keras.utils.set_random_seed(0)
    shared, own = np.repeat(RANDOM.normal(size=(16, 3)), 2, axis=0), RANDOM.normal(size=(32, 3)) * 2
    x = np.concatenate([shared, own], axis=1).astype("float32")
    model = keras.Sequential([keras.layers.Dense(3, use_bias=False)])
    model.compile(keras.optimizers.Adam(0.05), losses.SimCSE())
    history = model.fit(x, np.zeros(32), batch_size=32, shuffle=False, epochs=40, verbose=0).history["loss"]
    assert history[-1] < history[0] / 4
    size = np.abs(np.asarray(model.layers[0].kernel)).sum(1)
    assert size[:3].min() > size[3:].max()
