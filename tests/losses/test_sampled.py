"""Sampled softmax and NCE: expectations over all draws written out, on a vocabulary of five."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfloader import losses
from tfloader.errors import LossError
from tfloader.losses.sampled import alias_table, log_uniform

RANDOM = np.random.default_rng(10)
CLASSES, SIZE, SAMPLES = 5, 3, 3
HIDDEN, LABELS = RANDOM.normal(size=(4, SIZE)).astype("float32"), np.array([0, 3, 4, 1])
NOISE = [5.0, 1.0, 3.0, 0.5, 0.5]


def layer_of(kind, **options):
    layer = kind(CLASSES, SAMPLES, noise=NOISE, **options)
    layer.build([(None, SIZE), (None,)])
    layer.kernel.assign(RANDOM.normal(size=(CLASSES, SIZE)))
    if layer.bias is not None:
        layer.bias.assign(RANDOM.normal(size=CLASSES))
    return layer


def scores_of(layer):
    bias = 0 if layer.bias is None else np.asarray(layer.bias, "float64")
    return HIDDEN @ np.asarray(layer.kernel, "float64").T + bias


def expectation(layer, function=lambda loss: loss):
    """The exact mean of function(loss) over all draws."""
    q = np.array(NOISE) / sum(NOISE)
    total = 0
    for draw in itertools.product(range(CLASSES), repeat=SAMPLES):
        loss = np.asarray(layer.sampled_loss(HIDDEN, LABELS, np.array(draw)), "float64")
        total = total + np.prod(q[list(draw)]) * function(loss)
    return total


@pytest.mark.parametrize("use_bias", [True, False])
def test_the_sampled_sum_of_exponentials_is_unbiased(use_bias):
    layer = layer_of(losses.SampledSoftmax, use_bias=use_bias)
    scores = scores_of(layer)
    own = scores[np.arange(4), LABELS]
    # exp(loss + own score) is the estimate of the sum of exp(score) over all classes.
    found = expectation(layer, lambda loss: np.exp(loss + own))
    np.testing.assert_allclose(found, np.exp(scores).sum(-1), rtol=1e-6)


def test_with_many_samples_it_is_the_full_softmax():
    layer = losses.SampledSoftmax(CLASSES, 200_000, noise=NOISE, seed=1)
    layer.build([(None, SIZE), (None,)])
    found = layer.sampled_loss(HIDDEN, LABELS, layer.draw())
    np.testing.assert_allclose(found, layer.full_loss(HIDDEN, LABELS), atol=2e-2)


def test_nce_equals_its_expectation_in_closed_form():
    layer = layer_of(losses.NoiseContrastiveEstimation)
    q = np.array(NOISE) / sum(NOISE)
    odds = scores_of(layer) - np.log(SAMPLES * q)
    expected = np.log1p(np.exp(-odds[np.arange(4), LABELS])) + SAMPLES * (np.log1p(np.exp(odds)) * q).sum(-1)
    np.testing.assert_allclose(expectation(layer), expected, rtol=1e-6)


def test_nce_is_stationary_where_scores_are_log_probabilities():
    p = RANDOM.dirichlet(np.ones(CLASSES))
    layer = losses.NoiseContrastiveEstimation(CLASSES, SAMPLES, noise=NOISE)
    layer.build([(None, SIZE), (None,)])
    layer.kernel.assign(np.zeros((CLASSES, SIZE)))
    layer.bias.assign(np.log(p))
    q = np.array(NOISE) / sum(NOISE)
    with tf.GradientTape() as tape:
        total = 0.0
        for draw in itertools.product(range(CLASSES), repeat=SAMPLES):
            loss = layer.sampled_loss(np.zeros((CLASSES, SIZE), "float32"), np.arange(CLASSES), np.array(draw))
            total += tf.reduce_sum(loss * p.astype("float32")) * np.prod(q[list(draw)]).astype("float32")
    np.testing.assert_allclose(tape.gradient(total, layer.bias.value), np.zeros(CLASSES), atol=1e-6)


@pytest.mark.parametrize("noise", [log_uniform(1000), RANDOM.random(977) ** 8 + 1e-9, np.ones(1), np.ones(6)])
def test_the_alias_table_holds_exactly_the_noise(noise):
    noise = noise / noise.sum()
    keep, alias = alias_table(noise)
    found = keep.copy()
    np.add.at(found, alias, 1 - keep)
    np.testing.assert_allclose(found / len(noise), noise, atol=1e-15)
    assert keep.min() >= 0 and keep.max() <= 1


def test_draws_follow_the_noise():
    layer = losses.SampledSoftmax(CLASSES, 100_000, noise=NOISE, seed=2)
    found = np.bincount(np.asarray(layer.draw()), minlength=CLASSES) / 100_000
    np.testing.assert_allclose(found, np.array(NOISE) / sum(NOISE), atol=0.006)
    assert not np.array_equal(layer.draw(), layer.draw())


def test_log_uniform_noise_sums_to_one_and_falls():
    noise = log_uniform(30522)
    assert noise.sum() == pytest.approx(1, abs=1e-12) and (np.diff(noise) < 0).all()
    assert noise[0] / noise[9] == pytest.approx(np.log(2) / np.log(11 / 10))


@pytest.mark.parametrize("kind", [losses.SampledSoftmax, losses.NoiseContrastiveEstimation])
def test_a_model_learns_from_samples_is_judged_by_all_classes_and_saves(kind, tmp_path):
    keras.utils.set_random_seed(0)
    tokens = RANDOM.integers(1, 20, (64, 6))
    tokens[::2, 4:] = 0
    labels = (tokens + 1) % 20
    inputs, wanted = keras.Input((6,), dtype="int32"), keras.Input((6,), dtype="int32")
    layer = kind(20, 8, seed=3, name="sampled")
    hidden = layer([keras.layers.Embedding(20, 16, mask_zero=True)(inputs), wanted])
    model = keras.Model([inputs, wanted], hidden)
    model.compile(keras.optimizers.Adam(0.05))

    def exact():
        rows = keras.losses.sparse_categorical_crossentropy(
            labels, layer.logits(model([tokens, labels])), from_logits=True
        )
        return np.asarray(rows)[tokens > 0].mean()

    before = model.evaluate([tokens, labels], batch_size=64, verbose=0, return_dict=True)["loss"]
    assert before == pytest.approx(exact(), rel=1e-5)
    model.fit([np.tile(item, (120, 1)) for item in (tokens, labels)], batch_size=64, shuffle=False, verbose=0)
    assert exact() < 0.1 < before
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.get_layer("sampled").kernel, layer.kernel)
    assert again.get_layer("sampled").get_config() == layer.get_config()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_in_mixed_precision_only_the_rounding_of_hidden_counts(policy):
    keras.config.set_dtype_policy(policy)
    try:
        mixed = layer_of(losses.SampledSoftmax, seed=4)
    finally:
        keras.config.set_dtype_policy("float32")
    plain = layer_of(losses.SampledSoftmax, seed=4)
    plain.set_weights(mixed.get_weights())
    rounded = tf.cast(HIDDEN, policy.removeprefix("mixed_"))
    found = mixed([rounded, LABELS], training=True)
    plain([tf.cast(rounded, "float32"), LABELS], training=True)
    assert found.dtype == rounded.dtype
    assert float(mixed.losses[0]) == pytest.approx(float(plain.losses[0]), rel=1e-6)


def test_only_sampled_rows_of_the_table_get_gradients():
    layer = layer_of(losses.SampledSoftmax)
    with tf.GradientTape() as tape:
        loss = layer.sampled_loss(HIDDEN[:1], LABELS[:1], np.array([2, 2, 4]))
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.kernel.value))
    assert np.flatnonzero(np.abs(gradient).sum(-1)).tolist() == [0, 2, 4]


def test_wrong_noise_and_wrong_labels_are_errors():
    with pytest.raises(LossError, match="each of the 5 classes a number above 0"):
        losses.SampledSoftmax(5, 2, noise=[1, 2, 3, 4])
    with pytest.raises(LossError, match="smallest 0"):
        losses.SampledSoftmax(5, 2, noise=[1, 2, 3, 4, 0])
    layer = layer_of(losses.SampledSoftmax)
    with pytest.raises(tf.errors.InvalidArgumentError, match="A label is not a whole number from 0"):
        layer([HIDDEN, LABELS + 1])
