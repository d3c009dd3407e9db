"""Attention that knows how far each key is from each query."""

from __future__ import annotations

import math

import keras
from keras import ops

from tfloader.layers.attention import MultiHeadAttention
from tfloader.layers.rotary import sinusoids


@keras.saving.register_keras_serializable("tfloader")
class RelativeAttention(MultiHeadAttention):
    """Self-attention with a fixed vector for each distance added to the keys and to the values (Wei et al., 2019).

    The distance, key position minus query position, is clipped to `max_distance` on both sides; the vector of distance
    d is the sinusoid of d + max_distance.
    """

    def __init__(self, *arguments, max_distance=64, **kwargs):
        super().__init__(*arguments, **kwargs)
        self.max_distance = max_distance

    def vectors(self, distances):
        """[...] integers -> [..., head_size]."""
        far = self.max_distance
        table = sinusoids(ops.arange(2 * far + 1, dtype="float32"), self.head_size)
        return ops.take(ops.cast(table, self.compute_dtype), ops.clip(distances, -far, far) + far, axis=0)

    def between(self, queries, keys):
        """The vectors of all distances in a sequence, [queries, keys, head_size]."""
        return self.vectors(ops.expand_dims(ops.arange(keys), 0) - ops.expand_dims(ops.arange(queries), 1))

    def scores(self, query, key):
        vectors = self.between(ops.shape(query)[2], ops.shape(key)[2])
        relative = ops.einsum("bhqd,qkd->bhqk", query, vectors)
        if self.scaled:
            relative = relative * ops.cast(1 / math.sqrt(self.head_size), relative.dtype)
        return super().scores(query, key) + relative

    def context(self, probabilities, value):
        vectors = self.between(ops.shape(probabilities)[2], ops.shape(probabilities)[3])
        return super().context(probabilities, value) + ops.einsum("bhqk,qkd->bhqd", probabilities, vectors)

    def get_config(self):
        return {**super().get_config(), "max_distance": self.max_distance}
