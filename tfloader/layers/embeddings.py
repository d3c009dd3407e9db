"""Embeddings of tokens and positions."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfloader.errors import DataError
from tfloader.layers.base import Unmasked, arguments
from tfloader.layers.products import operations
from tfloader.optimizers.building import build_optimizer_around


@keras.saving.register_keras_serializable("tfloader")
class TokenEmbedding(keras.layers.ReversibleEmbedding):
    """Token table, which is also the output layer where the weights are tied: `layer(hidden, reverse=True)`.

    The mask that it sends to later layers (pooling, CRF, losses) hides `pad_token_id`, but never position 0: for T5
    the padding id is also the start token. An id outside the table is an error, and under XLA NaN.

    Args:
        pad_token_id: the id that is hidden, or None where every id is a real token.
    """

    def __init__(self, input_dim: int, output_dim: int, pad_token_id: int | None = None, **kwargs: Any) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self.pad_token_id = pad_token_id
        self.supports_masking = True

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        build_optimizer_around(self)  # every model of the package comes by here first
        if reverse:
            return super().call(inputs, reverse=True)
        return operations().look_up(super().call, inputs, self.input_dim, self.name)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        if self.pad_token_id is None or keras.backend.is_float_dtype(inputs.dtype):
            return mask
        return real_positions(inputs, self.pad_token_id)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad_token_id": self.pad_token_id}


def real_positions(token_ids: Any, pad_token_id: int) -> Any:
    """[batch, length] booleans: not padding. Position 0 always counts as real."""
    real = ops.not_equal(token_ids, pad_token_id)
    return ops.concatenate([ops.ones_like(real[:, :1]), real[:, 1:]], axis=1)


@keras.saving.register_keras_serializable("tfloader")
class SegmentEmbedding(keras.layers.Embedding):
    """Keras' Embedding in which an id outside the table is an error, and under XLA NaN."""

    def call(self, inputs: Any) -> Any:
        return operations().look_up(super().call, inputs, self.input_dim, self.name)


@keras.saving.register_keras_serializable("tfloader")
class PositionEmbedding(keras.layers.Layer):
    """Adds a learned vector for each position: [batch, length, size] -> the same.

    Args:
        input_dim: number of positions in the table.
        hierarchical: None, or the alpha of the hierarchical decomposition that lets a table of n positions serve n^2:
            with u(i) = (e(i) - alpha e(0)) / (1 - alpha), position i has
            alpha u(i div n) + (1 - alpha) u(i mod n)  (Su, kexue.fm/archives/7947, 2020).
    """

    def __init__(
        self, input_dim: int, hierarchical: Any = None, embeddings_initializer: Any = "uniform", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim = input_dim
        self.hierarchical = hierarchical
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.supports_masking = True

    def build(self, x_shape: Any, position_ids_shape: Any = None) -> None:
        shape = (self.input_dim, x_shape[-1])
        self.embeddings = self.add_weight(name="embeddings", shape=shape, initializer=self.embeddings_initializer)

    def call(self, x: Any, position_ids: Any = None) -> Any:
        table = ops.cast(self.embeddings, self.compute_dtype)
        length, positions = x.shape[1], self.input_dim ** (1 if self.hierarchical is None else 2)
        if position_ids is None and length is not None and length > positions:
            more = "" if self.hierarchical else ", or load the model with hierarchical_position=True, if its family can"
            raise DataError(
                f"{self.name}: texts of {length} tokens, but the model has {positions} positions. Give the tokenizer "
                f"max_length={positions} or divide the texts{more}."
            )
        if position_ids is None and self.hierarchical is None:
            return x + table[: ops.shape(x)[1]]
        if position_ids is None:
            position_ids = ops.arange(ops.shape(x)[1])[None]
        n = self.input_dim
        if self.hierarchical is None:
            return x + operations().look_up(lambda ids: ops.take(table, ids, axis=0), position_ids, n, self.name)
        alpha = self.hierarchical
        table = (table - alpha * table[:1]) / (1 - alpha)

        def decomposed(ids):
            return alpha * ops.take(table, ids // n, axis=0) + (1 - alpha) * ops.take(table, ids % n, axis=0)

        return x + operations().look_up(decomposed, position_ids, n * n, self.name)

    def compute_output_shape(self, x_shape: Any, position_ids_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **arguments(self, "input_dim", "hierarchical", "embeddings_initializer"),
        }


@keras.saving.register_keras_serializable("tfloader")
class RelativePositionBias(Unmasked):
    """T5's bias for the distance between a query and a key: two sequences -> [1, heads, queries, keys].

    Distances (key minus query) fall into buckets: exact up to half of them, then logarithmic up to `max_distance`
    (Raffel et al., 2020, section 2.1). Bidirectional stacks split the buckets between the two signs.
    """

    def __init__(
        self,
        num_heads: int,
        num_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
        embeddings_initializer: Any = "uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bidirectional = bidirectional
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)

    def build(self, queries_shape: Any, keys_shape: Any) -> None:
        shape = (self.num_buckets, self.num_heads)
        self.embeddings = self.add_weight(name="embeddings", shape=shape, initializer=self.embeddings_initializer)

    def call(self, queries: Any, keys: Any) -> Any:
        return self.bias(ops.arange(ops.shape(queries)[1]), ops.arange(ops.shape(keys)[1]))

    def bias(self, query_positions: Any, key_positions: Any) -> Any:
        """The bias for given positions of queries and keys, [1, heads, queries, keys]."""
        distance = key_positions[None, :] - query_positions[:, None]
        table = ops.cast(self.embeddings, self.compute_dtype)
        return ops.transpose(ops.take(table, self.bucket(distance), axis=0), (2, 0, 1))[None]

    def bucket(self, distance: Any) -> Any:
        """The bucket of each distance (key position minus query position), int32."""
        buckets, offset = self.num_buckets, 0
        if self.bidirectional:
            buckets //= 2
            offset = ops.cast(distance > 0, "int32") * buckets
            distance = ops.abs(distance)
        else:
            distance = ops.maximum(-distance, 0)
        exact = buckets // 2
        # In float32 and in this order, as the original: powers of two fall on the edges between buckets.
        far = ops.log(ops.cast(ops.maximum(distance, 1), "float32") / exact) / math.log(self.max_distance / exact)
        far = exact + ops.cast(far * (buckets - exact), "int32")
        return offset + ops.where(distance < exact, ops.cast(distance, "int32"), ops.minimum(far, buckets - 1))

    def compute_output_shape(self, queries_shape: Any, keys_shape: Any) -> Any:
        return (1, self.num_heads, queries_shape[1], keys_shape[1])

    def get_config(self) -> dict[str, Any]:
        names = ("num_heads", "num_buckets", "max_distance", "bidirectional", "embeddings_initializer")
        return {**super().get_config(), **arguments(self, *names)}


@keras.saving.register_keras_serializable("tfloader")
class PositionRows(Unmasked):
    """The rows of RoBERTa's position table for token ids [batch, length]: padding has row pad_token_id, real tokens the
    rows behind it in turn.

    With `position_ids` [batch, length], which count from 0, the rows of those.
    """

    def __init__(self, pad_token_id: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pad_token_id = pad_token_id

    def call(self, token_ids: Any, position_ids: Any = None) -> Any:
        if position_ids is None:
            real = ops.cast(ops.not_equal(token_ids, self.pad_token_id), "int32")
            position_ids = ops.cumsum(real, axis=1) * real - 1
        else:  # -1, which no table has, for one that would be the row of padding or of none
            position_ids = ops.where(position_ids < 0, -self.pad_token_id - 2, position_ids)
        return position_ids + self.pad_token_id + 1

    def compute_output_spec(self, token_ids: Any, position_ids: Any = None) -> Any:
        return keras.KerasTensor(token_ids.shape, "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pad_token_id": self.pad_token_id}


@keras.saving.register_keras_serializable("tfloader")
class Zeros(Unmasked):
    """The segment ids of a model that has one kind of segment: zeros, as many as there are token ids."""

    def call(self, token_ids: Any) -> Any:
        return ops.zeros_like(token_ids)

    def compute_output_spec(self, token_ids: Any) -> Any:
        return keras.KerasTensor(token_ids.shape, token_ids.dtype)
