"""The position-wise half of a Transformer block."""

from __future__ import annotations

from typing import Any

import keras

from tfloader.layers.activations import activation
from tfloader.layers.base import arguments, dense
from tfloader.layers.products import as_matrix


@keras.saving.register_keras_serializable("tfloader")
class FeedForward(keras.layers.Layer):
    """act(x W) V, or, gated, (act(x G) * x U) V (Shazeer, 2020): [..., size] -> [..., size].

    Args:
        intermediate_size: width in between.
        activation: one of `tfloader.config.ACTIVATION_NAMES`.
        gated: two products, `gate` (activated) and `up` (linear), in place of `intermediate`.
        dropout: rate on what enters the last product (T5).
    """

    def __init__(
        self,
        intermediate_size: int,
        activation: Any = "gelu",
        use_bias: bool = True,
        gated: bool = False,
        dropout: float = 0.0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.intermediate_size = intermediate_size
        self.activation = activation
        self.use_bias = use_bias
        self.gated = gated
        self.dropout = dropout
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        for name in ("gate", "up") if gated else ("intermediate",):
            setattr(self, name, dense(self, name, intermediate_size))
        self.dropout_layer = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, input_shape: Any) -> None:
        self.output_dense = dense(self, "output_dense", input_shape[-1])
        for layer in (self.gate, self.up) if self.gated else (self.intermediate,):
            layer.build(input_shape)
        self.output_dense.build((*input_shape[:-1], self.intermediate_size))

    def call(self, x: Any, training: Any = None) -> Any:
        function = activation(self.activation)
        rows = as_matrix(x)
        hidden = function(self.gate(rows)) * self.up(rows) if self.gated else function(self.intermediate(rows))
        rows = self.output_dense(self.dropout_layer(hidden, training=training))
        return keras.ops.reshape(rows, keras.ops.shape(x))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        names = ("intermediate_size", "activation", "use_bias", "gated", "dropout", "kernel_initializer")
        return {**super().get_config(), **arguments(self, *names)}
