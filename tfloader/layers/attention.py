"""Attention: who may look at whom, and the looking itself."""

from __future__ import annotations

import functools
import math

import keras
from keras import ops

from tfloader.errors import ConfigError
from tfloader.layers.base import Unmasked, arguments, dense
from tfloader.layers.embeddings import real_positions
from tfloader.layers.products import operations


@keras.saving.register_keras_serializable("tfloader")
class AttentionMask(Unmasked):
    """Turns token ids into a bias on attention scores: 0 where a query may look, hugely negative where not.

    Returns [batch or 1, 1, queries or 1, keys] in the compute dtype. The value is finite, so that a row that may look
    nowhere gets the mean of all values and not NaN; it still vanishes in the softmax beside any real score.

    Args:
        kind: "encoder" (all positions see all), "lm" (each sees itself and the past) or "unilm" (segment 0 sees all of
            itself, segment 1 sees the past too; Dong et al., 2019).
        pad_token_id: keys with this id are hidden (position 0 never), or None.
    """

    def __init__(self, kind="encoder", pad_token_id=None, **kwargs):
        super().__init__(**kwargs)
        self.kind = kind
        self.pad_token_id = pad_token_id

    def call(self, token_ids, segment_ids=None, mask_input=None):
        """`mask_input`: [batch, keys] integers, 0 = hidden; it replaces what `pad_token_id` says."""
        # expand_dims, as LiteRT has no form for new axes within brackets.
        conditions = []
        if self.kind == "lm":
            position = ops.arange(ops.shape(token_ids)[1])
            conditions.append((position[None, :] <= position[:, None])[None, None])
        elif self.kind == "unilm":
            group = ops.cumsum(segment_ids, axis=1)
            conditions.append(ops.expand_dims(ops.expand_dims(group, 1) <= ops.expand_dims(group, 2), 1))
        if mask_input is not None:
            conditions.append(ops.expand_dims(ops.not_equal(mask_input, 0), (1, 2)))
        elif self.pad_token_id is not None:
            conditions.append(ops.expand_dims(real_positions(token_ids, self.pad_token_id), (1, 2)))
        dtype = self.compute_dtype
        if not conditions:
            return ops.zeros((1, 1, 1, 1), dtype)
        allowed = functools.reduce(ops.logical_and, conditions)
        return ops.where(allowed, ops.cast(0.0, dtype), ops.cast(hidden(dtype), dtype))

    def compute_output_shape(self, token_ids_shape, segment_ids_shape=None, mask_input_shape=None):
        batch, length = token_ids_shape
        per_row = self.kind == "unilm" or mask_input_shape is not None or self.pad_token_id is not None
        if self.kind == "encoder" and not per_row:
            return (1, 1, 1, 1)
        return (batch if per_row else 1, 1, 1 if self.kind == "encoder" else length, length)

    def compute_output_spec(self, token_ids, segment_ids=None, mask_input=None):
        shape = self.compute_output_shape(token_ids.shape, None, None if mask_input is None else mask_input.shape)
        return keras.KerasTensor(shape, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), **arguments(self, "kind", "pad_token_id")}


def hidden(dtype: str) -> float:
    """What is added to a score that must vanish: half of the lowest number, so that adding a score cannot overflow."""
    return -3.2e4 if dtype == "float16" else -1.7e38


class Uncached:
    """What attention looks at in an ordinary graph: all keys and values are new. A cache has the same two methods."""

    def extend(self, layer, key, value):
        """New keys and values of self-attention -> all that its queries look at, in the order of positions."""
        return key, value

    def of_memory(self, layer, make):
        """Keys and values of a memory, which `make()` gives."""
        return make()


UNCACHED = Uncached()


@keras.saving.register_keras_serializable("tfloader")
class MultiHeadAttention(keras.layers.Layer):
    """Multi-head attention (Vaswani et al., 2017): [batch, queries, size] -> [batch, queries, output_size].

    Args:
        num_heads, head_size: heads and the width of each; their product need not be the model's width (T5).
        output_size: width of the result.
        use_bias: whether the four projections have one.
        scaled: divide the scores by sqrt(head_size); T5 does not.
        dropout: rate on the attention probabilities.
        return_scores: also return its own scaled scores, before residual scores and bias are added,
            [batch, heads, queries, keys].
    """

    def __init__(
        self,
        num_heads,
        head_size,
        output_size,
        use_bias=True,
        scaled=True,
        dropout=0.0,
        return_scores=False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if hasattr(self, "placed"):
            raise ConfigError(f"{type(self).__name__}.placed: this method is called apply_positions now. Rename it.")
        self.num_heads = num_heads
        self.head_size = head_size
        self.output_size = output_size
        self.use_bias = use_bias
        self.scaled = scaled
        self.dropout = dropout
        self.return_scores = return_scores
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True
        self.query, self.key, self.value = (
            dense(self, name, num_heads * head_size) for name in ("query", "key", "value")
        )
        self.output_dense = dense(self, "output_dense", output_size)
        self.dropout_layer = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")

    def build(self, x_shape, memory_shape=None, bias_shape=None, residual_scores_shape=None, positions_shape=None):
        memory_shape = memory_shape or x_shape
        self.query.build(x_shape)
        self.key.build(memory_shape)
        self.value.build(memory_shape)
        self.output_dense.build((*x_shape[:-1], self.num_heads * self.head_size))

    def call(self, x, memory=None, bias=None, residual_scores=None, positions=None, cache=None, training=None):
        """Attends from x to `memory` (default: to x itself).

        Args:
            memory: [batch, keys, size].
            bias: added to the scores, broadcast to [batch, heads, queries, keys].
            residual_scores: earlier scores to add before the bias (RealFormer).
            positions: what `apply_positions` needs to know of the positions of x.
            cache: holds keys and values of earlier positions (see `Uncached`); None: there are none.
        """
        cache = UNCACHED if cache is None else cache
        if memory is None:
            query, key, value = self.project(x, self.query, self.key, self.value)
            key, value = cache.extend(self, self.apply_positions(key, positions), value)
        else:
            (query,) = self.project(x, self.query)
            key, value = cache.of_memory(self, lambda: self.keys_values(memory, positions))
        own = self.scores(self.apply_positions(query, positions), key)
        scores = own if residual_scores is None else own + residual_scores
        output = self.attend(scores, value, bias, training)
        return (output, own) if self.return_scores else output

    def keys_values(self, memory, positions=None):
        key, value = self.project(memory, self.key, self.value)
        return self.apply_positions(key, positions), value

    def project(self, x, *layers):
        """What dense layers give for x, by heads: [batch, heads, length, head_size]."""
        return [self.heads(found) for found in operations().project(layers, x)]

    def heads(self, x):
        """[batch, length, heads * head_size] -> [batch, heads, length, head_size]"""
        if x.shape[1] == 1:
            return ops.reshape(x, (-1, self.num_heads, 1, self.head_size))
        return ops.transpose(operations().reshape(x, self.num_heads, self.head_size), (0, 2, 1, 3))

    def apply_positions(self, x, positions):
        """Queries or keys [batch, heads, length, head_size], made to depend on their positions; here they do not."""
        return x

    def scores(self, query, key):
        """Scaled products of every query with every key."""
        if self.scaled:
            query = query * ops.cast(1 / math.sqrt(self.head_size), query.dtype)
        return operations().matmul(query, key, transpose_b=True)

    def context(self, probabilities, value):
        """The sum of the values, weighted: [batch, heads, queries, head_size]."""
        return operations().matmul(probabilities, value)

    def attend(self, scores, value, bias=None, training=None):
        """Softmax over the keys, weighted sum of the values, output projection."""
        if bias is not None:
            scores = scores + bias
        probabilities = operations().softmax(scores, self.compute_dtype)
        context = self.context(self.dropout_layer(probabilities, training=training), value)
        size = self.num_heads * self.head_size
        if context.shape[2] == 1:
            context = ops.reshape(context, (-1, 1, size))
        else:
            context = operations().reshape(ops.transpose(context, (0, 2, 1, 3)), size)
        return operations().project((self.output_dense,), context)[0]

    def compute_output_shape(self, x_shape, memory_shape=None):
        output = (*x_shape[:-1], self.output_size)
        keys = (memory_shape or x_shape)[1]
        return (output, (x_shape[0], self.num_heads, x_shape[1], keys)) if self.return_scores else output

    def get_config(self):
        names = ("num_heads", "head_size", "output_size", "use_bias", "scaled", "dropout", "return_scores")
        return {**super().get_config(), **arguments(self, *names, "kernel_initializer")}
