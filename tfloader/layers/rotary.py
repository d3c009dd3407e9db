"""Rotary positions (Su et al., 2021): pairs of neighbouring channels turn by angles proportional to the position."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfloader.errors import ConfigError
from tfloader.layers.attention import MultiHeadAttention
from tfloader.layers.base import Unmasked


def sinusoids(positions, size):
    """Positions [...] -> [..., size], size even: sine and cosine of position / 10000^(2i / size) side by side."""
    if size % 2:
        raise ConfigError(f"Rotary positions need an even size; found {size}.")
    frequencies = ops.convert_to_tensor(10000.0 ** (-np.arange(0, size, 2) / size), dtype=positions.dtype)
    angles = ops.expand_dims(positions, -1) * frequencies
    pairs = ops.stack([ops.sin(angles), ops.cos(angles)], axis=-1)
    return ops.reshape(pairs, (*ops.shape(positions), size))


def rotate(x, turns):
    """x [..., size], each pair of channels turned by the angle whose sine and cosine `turns` [..., size] holds."""
    even, odd, sin, cos = x[..., 0::2], x[..., 1::2], turns[..., 0::2], turns[..., 1::2]
    return ops.reshape(ops.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1), ops.shape(x))


def rotate_by_position(x):
    """x [batch, length, ..., size], size even, turned by the position along axis 1; products then depend on distances.

    The pair of channels (2i, 2i + 1) turns by position / 10000^(2i / size); angles are computed in float32 or wider.
    """
    length = ops.shape(x)[1]
    turns = sinusoids(ops.arange(length, dtype=keras.backend.result_type(x.dtype, "float32")), x.shape[-1])
    shape = (1, length, *[1] * (len(x.shape) - 3), x.shape[-1])
    return rotate(x, ops.cast(ops.reshape(turns, shape), x.dtype))


@keras.saving.register_keras_serializable("tfloader")
class SinusoidalPosition(Unmasked):
    """The sines and cosines of positions that `RotaryAttention` needs: x [batch, length, ...] -> [1, length, size].

    With `position_ids` [batch, length] it gives those, [batch, length, size].
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, x, position_ids=None):
        precise = keras.backend.result_type(self.compute_dtype, "float32")
        positions = ops.expand_dims(ops.arange(ops.shape(x)[1]), 0) if position_ids is None else position_ids
        return ops.cast(sinusoids(ops.cast(positions, precise), self.size), self.compute_dtype)

    def compute_output_shape(self, x_shape, position_ids_shape=None):
        return (*((1, x_shape[1]) if position_ids_shape is None else position_ids_shape), self.size)

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("tfloader")
class RotaryAttention(MultiHeadAttention):
    """Multi-head attention whose queries and keys are turned by `positions`, their sines and cosines."""

    def apply_positions(self, x, positions):
        return rotate(x, ops.expand_dims(positions, 1))
