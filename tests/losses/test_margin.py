"""Margin losses against angles worked out one by one."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import losses


def by_hand(label, cosines, scale, margin=0.0, angular_margin=0.0):
    moved = np.array(cosines, "float64")
    angle = math.acos(moved[label])
    if angle + angular_margin <= math.pi:
        moved[label] = math.cos(angle + angular_margin) - margin
    else:
        moved[label] += -angular_margin * math.sin(angular_margin) - margin
    return np.log(np.exp(scale * moved).sum()) - scale * moved[label]


OPTIONS = [
    (losses.NormalizedSoftmax(), {"scale": 30.0}),
    (losses.NormalizedSoftmax(scale=5), {"scale": 5}),
    (losses.AMSoftmax(), {"scale": 30.0, "margin": 0.35}),
    (losses.AMSoftmax(scale=10, margin=0.2), {"scale": 10, "margin": 0.2}),
    (losses.ArcFace(scale=20), {"scale": 20, "angular_margin": 0.5}),
    (losses.ArcFace(scale=8, angular_margin=0.3), {"scale": 8, "angular_margin": 0.3}),
]


@pytest.mark.parametrize(("loss", "options"), OPTIONS)
def test_each_loss_equals_its_formula(loss, options):
    random = np.random.default_rng(3)
    cosines, labels = random.uniform(-0.99, 0.99, (40, 7)), random.integers(0, 7, 40)
    cosines[0, labels[0]] = -0.97  # beyond pi with an angular margin
    expected = [by_hand(label, row, **options) for label, row in zip(labels, cosines, strict=True)]
    np.testing.assert_allclose(losses.margin_softmax(labels, cosines, **options), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.margin_softmax(labels[:, None], cosines, **options), expected, rtol=1e-6)
    assert float(loss(labels, cosines)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_without_margin_it_is_cross_entropy_of_scaled_cosines():
    random = np.random.default_rng(4)
    cosines, labels = random.uniform(-1, 1, (2, 5, 7)), random.integers(0, 7, (2, 5))
    expected = keras.losses.sparse_categorical_crossentropy(labels, 30 * cosines, from_logits=True)
    np.testing.assert_allclose(losses.margin_softmax(labels, cosines), expected, rtol=1e-6)


@pytest.mark.parametrize("cosine", [-1.0, 0.0, 1.0])
def test_angles_of_0_and_pi_have_finite_gradients(cosine):
    cosines = tf.constant([[cosine, 0.3]])
    with tf.GradientTape() as tape:
        tape.watch(cosines)
        loss = losses.margin_softmax([0], cosines, scale=4.0, angular_margin=0.5)
    assert np.isfinite(tape.gradient(loss, cosines)).all()


def test_a_label_that_no_class_has_is_an_error():
    for bad in (-1, 5):
        with pytest.raises(tf.errors.InvalidArgumentError, match="A label is not a whole number from 0"):
            losses.margin_softmax([bad], np.zeros((1, 5)))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_cosine_dense_gives_cosines_in_float32_under_any_policy(policy):
    keras.config.set_dtype_policy(policy)
    try:
        layer = losses.CosineDense(4)
    finally:
        keras.config.set_dtype_policy("float32")
    x = np.random.default_rng(5).normal(size=(3, 6)).astype("float32") * 100
    found = np.asarray(layer(x))
    kernel = np.asarray(layer.kernel, "float64")
    expected = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (kernel / np.linalg.norm(kernel, axis=0))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_training_with_a_margin_separates_classes():
    random = np.random.default_rng(6)
    y = np.arange(60) % 3
    x = (np.eye(3)[y] + random.normal(size=(60, 3)) * 0.2).astype("float32")
    model = keras.Sequential([keras.layers.Dense(8), losses.CosineDense(3)])
    model.compile(keras.optimizers.Adam(0.02), losses.AMSoftmax(), metrics=["accuracy"])
    assert model.fit(x, y, epochs=25, verbose=0).history["accuracy"][-1] == 1.0
