"""The gated attention unit: attention with one head and a gated linear unit in one layer (Hua et al., 2022)."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfloader.errors import ConfigError
from tfloader.layers.base import arguments, dense
from tfloader.layers.masking import keep_scores
from tfloader.layers.rotary import rotate_by_position


def squared_relu(scores: Any, keys: Any) -> Any:
    """relu(score)^2 / number of keys."""
    return ops.square(ops.relu(scores)) / keys


def softmax(scores: Any, keys: Any) -> Any:
    return ops.softmax(scores)


def softmax_plus(scores: Any, keys: Any) -> Any:
    """Softmax of scores that grow with the logarithm of the number of keys (Su, kexue.fm/archives/8823, 2021)."""
    return ops.softmax(scores * (ops.log(ops.maximum(keys, 16.0)) / math.log(512)))


# How scores become weights, given the number of keys that a query may see, at least 1.
NORMALIZATIONS = {function.__name__: function for function in (squared_relu, softmax, softmax_plus)}


@keras.saving.register_keras_serializable("tfloader")
class GatedAttentionUnit(keras.layers.Layer):
    """(u * attention(x) v) W, with u, v = act(x U): [batch, length, size] -> the same shape.

    Queries and keys are two scaled and shifted copies of one narrow projection.

    Args:
        units: width of u and v, usually twice the model's.
        key_size: width of queries and keys; even with `rotary`.
        rotary: turn queries and keys by their positions.
        normalization: "squared_relu", "softmax" or "softmax_plus".
        attention_scale: divide scores by sqrt(key_size).
        attention_dropout: rate on the attention weights.
    """

    def __init__(
        self,
        units: int,
        key_size: int,
        activation: Any = "swish",
        use_bias: bool = True,
        rotary: bool = False,
        normalization: str = "squared_relu",
        attention_scale: bool = True,
        attention_dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if normalization not in NORMALIZATIONS:
            raise ConfigError(f"Unknown normalization {normalization!r}; there are {', '.join(NORMALIZATIONS)}.")
        self.units = units
        self.key_size = key_size
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.rotary = rotary
        self.normalization = normalization
        self.attention_scale = attention_scale
        self.attention_dropout = attention_dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        self.dropout_layer = keras.layers.Dropout(attention_dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, x_shape: Any) -> None:
        self.i_dense = dense(self, "i_dense", 2 * self.units + self.key_size, self.activation)
        self.o_dense = dense(self, "o_dense", x_shape[-1])
        self.i_dense.build(x_shape)
        self.o_dense.build((*x_shape[:-1], self.units))

        def vectors(kind, initializer):
            return [self.add_weight((self.key_size,), initializer, name=f"{part}_{kind}") for part in "qk"]

        self.q_gamma, self.k_gamma = vectors("gamma", "ones")
        if self.use_bias:
            self.q_beta, self.k_beta = vectors("beta", "zeros")

    def call(self, x: Any, allowed: Any = None, mask: Any = None, training: Any = None) -> Any:
        """`allowed`: booleans, broadcast to [batch, queries, keys]; `mask` [batch, keys], as Keras passes it on."""
        u, v, qk = ops.split(self.i_dense(x), (self.units, 2 * self.units), axis=-1)
        query, key = qk * self.q_gamma, qk * self.k_gamma
        if self.use_bias:
            query, key = query + self.q_beta, key + self.k_beta
        if self.rotary:
            query, key = rotate_by_position(query), rotate_by_position(key)
        if self.attention_scale:
            query = query / math.sqrt(self.key_size)
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 1)))
        weights = self.dropout_layer(self.weights_of(scores, allowed, mask), training=training)
        return self.o_dense(u * ops.matmul(weights, v))

    def weights_of(self, scores: Any, allowed: Any, mask: Any) -> Any:
        """Scores [batch, queries, keys] -> attention weights; a query that may look nowhere gets finite ones."""
        seen = ops.ones_like(scores, "bool")
        for other in (allowed, None if mask is None else ops.expand_dims(mask, 1)):
            seen = seen if other is None else ops.logical_and(seen, other)
        # Squares and sums lose digits in half precision.
        precise = keras.backend.result_type(scores.dtype, "float32")
        keys = ops.maximum(ops.sum(ops.cast(seen, precise), axis=-1, keepdims=True), 1)
        scores = keep_scores(ops.cast(scores, precise), seen)
        return ops.cast(NORMALIZATIONS[self.normalization](scores, keys), self.compute_dtype)

    def compute_output_shape(self, x_shape: Any, allowed_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        names = ("units", "key_size", "use_bias", "rotary", "normalization", "attention_scale", "attention_dropout")
        noted = arguments(self, *names, "kernel_initializer")
        return {**super().get_config(), **noted, "activation": keras.activations.serialize(self.activation)}
