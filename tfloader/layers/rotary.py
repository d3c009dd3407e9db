"""Rotary positions (Su et al., 2021): pairs of neighbouring channels turn by angles proportional to the position."""

from __future__ import annotations

import math

import keras
from keras import ops

from tfloader.errors import ConfigError


def rotate_by_position(x):
    """x [batch, length, ..., size], size even, turned by the position along axis 1; products then depend on distances.

    The pair of channels (2i, 2i + 1) turns by position / 10000^(2i / size); angles are computed in float32 or wider.
    """
    size = x.shape[-1]
    if size % 2:
        raise ConfigError(f"Rotary positions need an even size; found {size}.")
    length, precise = ops.shape(x)[1], keras.backend.result_type(x.dtype, "float32")
    pairs = ops.reshape(x, (*ops.shape(x)[:-1], size // 2, 2))
    frequencies = ops.exp(-math.log(10000) / size * ops.arange(0, size, 2, dtype=precise))
    angles = ops.arange(length, dtype=precise)[:, None] * frequencies
    angles = ops.reshape(angles, (1, length, *[1] * (len(x.shape) - 3), size // 2))
    sin, cos = ops.cast(ops.sin(angles), x.dtype), ops.cast(ops.cos(angles), x.dtype)
    even, odd = pairs[..., 0], pairs[..., 1]
    return ops.reshape(ops.stack([even * cos - odd * sin, odd * cos + even * sin], axis=-1), ops.shape(x))
