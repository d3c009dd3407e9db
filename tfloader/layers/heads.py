"""Small layers between the large ones."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfloader.layers.base import Unmasked


@keras.saving.register_keras_serializable("tfloader")
class Add(keras.layers.Add):
    """Adds tensors; the mask is the first one's (Keras' Add drops it where another tensor has none)."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None if mask is None else mask[0]


@keras.saving.register_keras_serializable("tfloader")
class FirstToken(Unmasked):
    """[batch, length, size] -> [batch, size]: the vector of the first token ([CLS])."""

    def call(self, x: Any) -> Any:
        return x[:, 0]


@keras.saving.register_keras_serializable("tfloader")
class Bias(keras.layers.Layer):
    """Adds a learned vector to the last axis (the output bias of the masked language model)."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return mask

    def build(self, input_shape: Any) -> None:
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros")

    def call(self, x: Any) -> Any:
        return x + ops.cast(self.bias, self.compute_dtype)


@keras.saving.register_keras_serializable("tfloader")
class Scale(keras.layers.Layer):
    """Multiplies by a constant."""

    def __init__(self, factor: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factor = factor
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        return x * ops.cast(self.factor, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}
