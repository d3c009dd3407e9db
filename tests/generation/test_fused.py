"""The fused forms of layers against the layers themselves, and what they must notice: training, LoRA, own classes."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader import layers as tfl
from tfloader.generation import fused as forms
from tfloader.generation.fused import FusedOperations, cast_once, fused
from tfloader.generation.text import TextGenerator

X = np.random.default_rng(0).normal(1.0, 2.0, (2, 3, 8)).astype("float32")
LAYERS = {
    "dense": lambda dtype: keras.layers.Dense(5, dtype=dtype, bias_initializer="normal"),
    "dense without bias": lambda dtype: keras.layers.Dense(5, dtype=dtype, use_bias=False),
    "dense with activation": lambda dtype: keras.layers.Dense(5, "gelu", dtype=dtype),
    "layer norm": lambda dtype: keras.layers.LayerNormalization(dtype=dtype, epsilon=1e-12),
    "rms norm": lambda dtype: tfl.RMSNormalization(dtype=dtype),
    "feed forward": lambda dtype: tfl.FeedForward(7, "gelu_tanh", dtype=dtype),
    "gated feed forward": lambda dtype: tfl.FeedForward(7, "silu", use_bias=False, gated=True, dtype=dtype),
}
TOLERANCE = {"float32": 2e-6, "float64": 1e-12, "bfloat16": 0.04, "mixed_bfloat16": 0.04}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", LAYERS)
def test_a_fused_form_is_used_and_computes_what_the_layer_does(name, dtype):
    layer = LAYERS[name](dtype)
    x = tf.cast(X, layer.compute_dtype)
    layer(x)
    random = np.random.default_rng(1)
    for variable in layer.variables:
        variable.assign(random.normal(0.5, 0.5, variable.shape))
    form = fused(layer)
    assert form is not layer
    found, expected = form(x), layer(x)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(
        tf.cast(found, tf.float64), tf.cast(expected, tf.float64), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
    )


class Doubled(keras.layers.Dense):
    def call(self, x, training=None):
        return 2 * super().call(x)


def test_a_class_of_ones_own_and_a_quantized_layer_are_called_as_they_are():
    quantized = keras.layers.Dense(5)
    quantized(X)
    quantized.quantize("int8")
    unscaled = keras.layers.LayerNormalization(scale=False)
    for layer in (Doubled(5), quantized, unscaled):
        assert fused(layer) is layer


def test_low_rank_changes_of_a_dense_layer_count():
    layer = keras.layers.Dense(5)
    layer(X)
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones((2, 5)))
    np.testing.assert_allclose(fused(layer)(X), layer(X), atol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16, tf.float16])
@pytest.mark.parametrize("keys", [5, 2000])
def test_products_of_few_rows_equal_those_of_many(dtype, keys):
    random = np.random.default_rng(2)
    query = tf.cast(random.normal(size=(2, 3, 1, 64)), dtype)
    table = tf.cast(random.normal(size=(2, 3, keys, 64)), dtype)
    found, expected = (
        tf.cast(product(query, table, transpose_b=True), tf.float32)
        for product in (forms.few_rows_product, forms.many_rows_product)
    )
    np.testing.assert_allclose(found, expected, atol=1e-4 if dtype == tf.float32 else 0.2)


def test_weights_of_a_loop_are_cast_once_and_others_are_read():
    layer = keras.layers.Dense(5, dtype="mixed_bfloat16")
    layer(tf.cast(X, tf.bfloat16))
    operations = FusedOperations(weights=cast_once(layer.variables, "bfloat16"))
    once = operations.weight(layer.kernel, tf.bfloat16)
    assert operations.weight(layer.kernel, tf.bfloat16) is once
    assert operations.weight(layer.kernel, tf.float32).dtype == tf.float32
    assert FusedOperations().weight(layer.kernel, tf.bfloat16) is not once


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_training_between_two_calls_is_noticed(dtype):
    model = tfloader.load(CHECKPOINTS / "hf_gpt2", dtype=dtype)
    made = TextGenerator(model)
    options = {"max_new_tokens": 6, "eos_token_id": None}
    before = made.generate_ids([[5, 6, 7]], **options)
    random = np.random.default_rng(4)
    for variable in model.trainable_variables:
        variable.assign(variable + random.normal(0, 0.1, variable.shape))
    after = made.generate_ids([[5, 6, 7]], **options)
    fresh = TextGenerator(model).generate_ids([[5, 6, 7]], **options)
    assert after.sequences == fresh.sequences != before.sequences
    assert made.decoder.traces == 2
