"""Conditional layer normalisation in a loaded model: it starts as the checkpoint, and training goes through it."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfloader
from tests.conftest import CHECKPOINTS

RANDOM = np.random.default_rng(14)
TOKENS = [RANDOM.integers(1, 90, (6, 5)), np.zeros((6, 5), "int32")]
KIND = np.array([0, 1, 0, 1, 1, 0])


def test_gradients_of_its_dense_layers_equal_the_closed_form():
    x, condition = RANDOM.normal(size=(2, 3, 8)).astype("float32"), RANDOM.normal(size=(2, 5)).astype("float32")
    weights = RANDOM.normal(size=x.shape).astype("float32")
    layer = tfloader.ConditionalLayerNormalization(epsilon=1e-6)
    layer(x, condition)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(x, condition) * weights)
    kernels = [layer.beta_dense.kernel.value, layer.gamma_dense.kernel.value]
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    expected = [condition.T @ weights.sum(1), condition.T @ (weights * normal).sum(1)]
    for found, value in zip(tape.gradient(total, kernels), expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-5)


@pytest.mark.parametrize("hidden", [None, 4])
@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_model_learns_from_the_condition_alone(dtype, hidden, tmp_path):
    """All rows are to be told apart by their condition, which only the norms see."""
    keras.utils.set_random_seed(0)
    kind = keras.Input((), dtype="int32", name="kind")
    condition = keras.layers.Embedding(2, 3)(kind)
    options = {"num_hidden_layers": 1, "layer_norm_cond": condition, "additional_input_layers": kind, "dtype": dtype}
    bert = tfloader.load(CHECKPOINTS / "bert_google", layer_norm_cond_hidden_size=hidden, **options)
    plain = tfloader.load(CHECKPOINTS / "bert_google", num_hidden_layers=1, dtype=dtype)
    tolerance = 1e-5 if dtype == "float32" else 0.1
    np.testing.assert_allclose(
        np.array(bert([*TOKENS, KIND]), "float32"), np.array(plain(TOKENS), "float32"), atol=tolerance
    )
    model = keras.Model(bert.inputs, keras.layers.Dense(2, dtype="float32")(bert.output[:, 0]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"], run_eagerly=True)
    same = [np.repeat(item[:1], 6, axis=0) for item in TOKENS]
    model.fit([*same, KIND], KIND, epochs=12, verbose=0)
    assert model.evaluate([*same, KIND], KIND, return_dict=True, verbose=0)["accuracy"] == 1.0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again([*same, KIND]), model([*same, KIND]))
