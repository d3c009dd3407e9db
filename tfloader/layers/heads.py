"""Small layers between the large ones."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfloader.layers.base import Unmasked
from tfloader.layers.pooling import last_token


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
class LastToken(Unmasked):
    """[batch, length, size] -> [batch, size]: the vector of the last token that is not pad_token_id.

    Args:
        pad_token_id: None: of the last position, whatever it is; otherwise it is called with the ids [batch, length].
    """

    def __init__(self, pad_token_id: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pad_token_id = pad_token_id

    def call(self, x: Any, token_ids: Any = None) -> Any:
        if self.pad_token_id is None:
            return x[:, -1]
        return last_token(x, token_ids != self.pad_token_id)

    def compute_output_shape(self, input_shape: Any, *_: Any) -> Any:
        return (input_shape[0], input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad_token_id": self.pad_token_id}


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
