"""Attention that knows how far each key is from each query."""

from __future__ import annotations

import math

import keras
from keras import ops

from tfloader.layers.attention import MultiHeadAttention
from tfloader.layers.products import operations
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
        """The vectors of the distances from queries to keys, [queries, keys, head_size]."""

        def make():
            query_positions = ops.arange(queries) + operations().first_query
            return self.vectors(ops.expand_dims(ops.arange(keys), 0) - ops.expand_dims(query_positions, 1))

        return operations().once(self, make)

    def scores(self, query, key):
        own = super().scores(query, key)
        relative = ops.einsum("bhqd,qkd->bhqk", query, self.between(*ops.shape(own)[2:]))
        if self.scaled:
            relative = relative * ops.cast(1 / math.sqrt(self.head_size), relative.dtype)
        return own + relative

    def context(self, probabilities, value):
        vectors = self.between(*ops.shape(probabilities)[2:])
        return super().context(probabilities, value) + ops.einsum("bhqk,qkd->bhqd", probabilities, vectors)

    def get_config(self):
        return {**super().get_config(), "max_distance": self.max_distance}
