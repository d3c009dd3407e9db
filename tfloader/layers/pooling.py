"""One vector for a text, from those of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfloader.errors import ConfigError
from tfloader.layers.base import MaskReader

MODES = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")


@keras.saving.register_keras_serializable("tfloader")
class Pooling(MaskReader):
    """[batch, length, size] -> [batch, size * modes]: vectors of texts, as sentence-transformers pools them.

    Padding takes no part. It comes from the Keras mask, or from the argument `mask` [batch, length].

    Args:
        modes: one or several, whose vectors are put together in this order: "cls" (the first token), "max", "mean",
            "mean_sqrt_len" (the sum, divided by the root of the length), "weightedmean" (token i weighs i), and
            "lasttoken".
    """

    def __init__(self, modes: Sequence[str] = ("mean",), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.modes = tuple(modes)
        if not self.modes or not set(self.modes) <= set(MODES):
            raise ConfigError(f"modes: expected some of {', '.join(MODES)}; found {', '.join(map(repr, modes))}.")

    def call(self, x: Any, mask: Any = None) -> Any:
        dtype = x.dtype
        x = ops.cast(x, "float32")
        mask = ops.ones(ops.shape(x)[:2], "float32") if mask is None else ops.cast(mask, "float32")
        weights = mask[:, :, None]
        count = ops.maximum(ops.sum(weights, axis=1), 1e-9)
        pools = {
            "cls": lambda: x[:, 0],
            "max": lambda: ops.max(ops.where(weights > 0, x, -1e9), axis=1),
            "mean": lambda: ops.sum(x * weights, axis=1) / count,
            "mean_sqrt_len": lambda: ops.sum(x * weights, axis=1) / ops.sqrt(count),
            "weightedmean": lambda: weighted_mean(x, weights),
            "lasttoken": lambda: last_token(x, mask),
        }
        return ops.cast(ops.concatenate([pools[mode]() for mode in self.modes], axis=-1), dtype)

    def compute_output_spec(self, x: Any, mask: Any = None) -> Any:
        return keras.KerasTensor((x.shape[0], x.shape[2] * len(self.modes)), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "modes": self.modes}


def weighted_mean(x: Any, weights: Any) -> Any:
    """The mean in which the i-th position, from 1, weighs i."""
    weights = weights * ops.arange(1, ops.shape(x)[1] + 1, dtype="float32")[None, :, None]
    return ops.sum(x * weights, axis=1) / ops.maximum(ops.sum(weights, axis=1), 1e-9)


def last_token(x: Any, mask: Any) -> Any:
    """The vector at the last real position: [batch, length, size], [batch, length] -> [batch, size]."""
    last = ops.argmax(ops.cast(mask, "int32") * ops.arange(1, ops.shape(x)[1] + 1, dtype="int32"), axis=1)
    return ops.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
