"""GlobalPointer against bert4keras' numbers."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import FIXTURES
from tfloader import ConfigError, losses
from tfloader.layers import EfficientGlobalPointer, GlobalPointer, pointer_spans
from tfloader.layers.rotary import rotate_by_position

FOLDER = FIXTURES / "num_layers"
CASES = np.load(FOLDER / "cases.npz")
OPTIONS = {name: case for name, case in json.loads((FOLDER / "cases.json").read_text()).items() if "Pointer" in name}
KINDS = {kind.__name__: kind for kind in (GlobalPointer, EfficientGlobalPointer)}
TOLERANCES = {"float64": 1e-13, "float32": 4e-6, "float16": 2e-2, "bfloat16": 0.2}


def scorer(name, dtype):
    """The layer of a case with its weights, its inputs, and its mask or None."""
    options = dict(OPTIONS[name])
    kind, masked = KINDS[options.pop("layer")], options.pop("mask")
    layer = kind(**options, dtype=dtype)
    layer.build(CASES[f"{name}/x"].shape)
    for weight in layer.weights:
        weight.assign(CASES[f"{name}/w/{'/'.join(weight.path.split('/')[-2:])}"])
    return layer, CASES[f"{name}/x"], CASES[f"{name}/mask"] if masked else None


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(
    ("dtype", "atol"), [("float64", 1e-13), ("float32", 4e-6), ("float16", 2e-2), ("bfloat16", 0.2)]
)
def test_scores_equal_bert4keras_and_masked_ones_are_far_below(name, dtype, atol):
    layer, x, mask = scorer(name, dtype)
    found, expected = np.asarray(layer(x, mask=mask)).astype("float64"), CASES[f"{name}/out"]
    assert found.shape == expected.shape and not np.isnan(found).any()
    real = np.isfinite(expected)
    np.testing.assert_allclose(found[real], expected[real], atol=TOLERANCES[dtype])
    assert (found[~real] <= -1e30).all()
    assert dtype == "float16" or np.isfinite(found).all()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["GlobalPointer_0", "EfficientGlobalPointer_5"])
def test_the_loss_and_its_gradients_are_finite_and_leave_masked_spans_out(name, dtype):
    layer, x, mask = scorer(name, dtype)
    mask[0] = False  # a row of padding only
    labels = np.random.default_rng(0).random(CASES[f"{name}/out"].shape) < 0.1
    with tf.GradientTape() as tape:
        scores = layer(x, mask=mask)
        loss = losses.multilabel_categorical_crossentropy(labels, scores, axis=(-2, -1))
        total = tf.reduce_sum(loss)
    gradients = tape.gradient(total, [weight.value for weight in layer.trainable_variables])
    assert all(np.isfinite(np.asarray(gradient, "float32")).all() for gradient in gradients)
    assert not np.asarray(loss)[0].any()
    real = mask[:, None, :, None] & mask[:, None, None, :] & np.triu(np.ones((7, 7), bool))
    wide = np.asarray(scores).astype("float64")
    by_hand = np.log1p(np.where(real & ~labels, np.exp(np.where(real, wide, 0)), 0).sum((-2, -1)))
    by_hand += np.log1p(np.where(real & labels, np.exp(-np.where(real, wide, 0)), 0).sum((-2, -1)))
    np.testing.assert_allclose(loss, by_hand, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS.values())
def test_a_saved_pointer_gives_the_same_scores_and_uses_the_mask_of_keras(kind, tmp_path):
    tokens = np.array([[3, 1, 4, 0, 0], [1, 5, 9, 2, 6]])
    inputs = keras.Input((None,), dtype="int32")
    embedded = keras.layers.Embedding(10, 8, mask_zero=True)(inputs)
    model = keras.Model(inputs, kind(2, 4, tril_mask=False)(embedded))
    scores = model.predict_on_batch(tokens)
    assert ((scores > -1e30) == ((tokens > 0)[:, None, :, None] & (tokens > 0)[:, None, None, :])).all()
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras").predict_on_batch(tokens), scores)


def test_products_of_rotated_vectors_depend_on_the_distance_alone():
    random = np.random.default_rng(1)
    query, key = (np.broadcast_to(random.normal(size=6), (1, 9, 6)) for _ in range(2))
    products = np.asarray(rotate_by_position(query))[0] @ np.asarray(rotate_by_position(key))[0].T
    for distance in range(-8, 9):
        np.testing.assert_allclose(np.ptp(np.diagonal(products, distance)), 0, atol=1e-12)
    assert products[0, 0] == pytest.approx(query[0, 0] @ key[0, 0])
    # Channels 2i and 2i + 1 turn by position / 10000^(2i / size).
    turned = (query[0, 3, 2] + 1j * query[0, 3, 3]) * np.exp(3j / 10000 ** (2 / 6))
    np.testing.assert_allclose(rotate_by_position(query)[0, 3, 2:4], [turned.real, turned.imag], rtol=1e-12)


def test_an_odd_size_cannot_turn():
    with pytest.raises(ConfigError, match="even"):
        GlobalPointer(2, 5)
    with pytest.raises(ConfigError, match="even"):
        rotate_by_position(np.ones((1, 2, 3)))
    GlobalPointer(2, 5, RoPE=False)


def test_spans_are_those_above_the_threshold():
    scores = np.full((2, 2, 4, 4), -1.0)
    scores[0, 1, 0, 2] = scores[0, 0, 3, 3] = 2.0
    scores[1, 1, 1, 1] = 0.0
    assert pointer_spans(scores) == [[(0, 3, 3), (1, 0, 2)], []]
    assert pointer_spans(scores[1], threshold=-0.5) == [(1, 1, 1)]
    rows = scores[:1], scores[1:, :, :2, :2]
    ragged = tf.concat([tf.RaggedTensor.from_tensor(tf.constant(row), ragged_rank=3) for row in rows], axis=0)
    assert pointer_spans(ragged) == pointer_spans(scores)
    with pytest.raises(ConfigError, match="expected"):
        pointer_spans(scores[0, 0])
