"""Layers in inference as few TensorFlow operations: in a decoding step, what is not a product with weights costs time,
and in the first call all of it does.

`fused(layer)` is the layer, or stands for it and computes the same. The forms are those that TensorFlow fuses or runs
fastest on CPUs, found by measuring (see benchmarks/README.md). There is one for each *exact* class of `FORMS`: a layer
of any other class, derived ones included, is called as it is.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from tfloader import layers as tfl
from tfloader.generation.kernels import product
from tfloader.layers.activations import activation
from tfloader.layers.attention import hidden
from tfloader.layers.products import Operations, as_matrix, operations

# From this size on oneDNN's batched product is faster than Eigen's in half precision; below, its start costs more.
SMALL = 2**18


def fused(layer: Any) -> Any:
    """What computes `layer(...)` in inference for x [rows, length, size] or [rows, size] of its compute dtype."""
    form, condition = FORMS.get(type(layer), (None, None))
    return Fused(layer, form) if form and condition and condition(layer) else layer


class Fused:
    """A layer that is called by another function, and is otherwise itself."""

    def __init__(self, layer: Any, form: Callable) -> None:
        self._layer, self._form = layer, form

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._form(self._layer, *arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def no_copy(*layers: Any) -> None:
    """No copy of these layers' kernels."""


@dataclass(frozen=True)
class FusedOperations(Operations):
    """The operations of attention for few rows, and what the forms of layers share while one graph is traced.

    Attributes:
        kernels: layers that read the same rows -> one product in place of theirs (`KernelCopies.of`, or `note`).
        weights: id of a variable -> its value in the compute dtype; see `cast_once`.
        shape: sizes -> the shape [rows, length, *sizes] of all tensors of unknown length; see `measured_once`.
        stepping: whether one token a row is read, at `first_query`; else whole texts.
        made: what `once` has made while this text, or this token, is read.
    """

    kernels: Callable[..., Any] = no_copy
    weights: Mapping[int, Any] = field(default_factory=dict)
    shape: Callable[..., Any] | None = None
    stepping: bool = False
    first_query: Any = 0
    made: dict[int, Any] = field(default_factory=dict)

    def project(self, layers: Sequence[Any], x: Any) -> list[Any]:
        copy = self.kernels(*layers) if len(layers) > 1 else None
        if copy is None:
            return [fused(layer)(x) for layer in layers]
        found = self.reshape_rows(copy.product(as_matrix(x)), x, sum(layer.units for layer in layers))
        return tf.split(found, [layer.units for layer in layers], axis=-1)

    def matmul(self, a: Any, b: Any, transpose_b: bool = False) -> Any:
        if hasattr(b, "matmul"):  # of several parts
            return b.matmul(a, transpose_b)
        return (few_rows_product if self.stepping else many_rows_product)(a, b, transpose_b)

    def softmax(self, scores: Any, dtype: str) -> Any:
        scores = tf.cast(scores, tf.float32)
        shares = tf.exp(scores - tf.reduce_max(scores, axis=-1, keepdims=True))
        return tf.cast(shares / tf.reduce_sum(shares, axis=-1, keepdims=True), dtype)

    def reshape(self, x: Any, *sizes: int) -> Any:
        return self.reshape_rows(x, x, *sizes)

    def reshape_rows(self, x: Any, like: Any, *sizes: int) -> Any:
        """x as [rows, length, *sizes], where `like` is [rows, length, ...]; as it is, where `like` is a matrix."""
        if len(like.shape) == 2:
            return x
        if like.shape[1] is not None:
            return tf.reshape(x, (-1, like.shape[1], *sizes))
        return tf.reshape(x, self.shape(*sizes) if self.shape else (*tf.unstack(tf.shape(like)[:2]), *sizes))

    def look_up(self, table: Callable[[Any], Any], ids: Any, rows: int, name: str) -> Any:
        return table(ids)  # ids from outside are checked once, where they come in

    def once(self, layer: Any, make: Callable[[], Any]) -> Any:
        if id(layer) not in self.made:
            self.made[id(layer)] = make()
        return self.made[id(layer)]

    def weight(self, variable: Any, dtype: Any) -> Any:
        """A variable's value in the dtype that is computed in."""
        found = self.weights.get(id(variable))
        return found if found is not None and found.dtype == dtype else tf.cast(tf.convert_to_tensor(variable), dtype)


DEFAULT = FusedOperations()


def current() -> FusedOperations:
    """The fused operations in force."""
    found = operations()
    return found if isinstance(found, FusedOperations) else DEFAULT


def cast_once(variables: Iterable[Any], dtype: Any) -> dict[int, Any]:
    """The `weights` of a loop: those that are stored in another dtype than `dtype`, cast before it begins.

    They are cast anew at each call of the graph, so that training between two calls is noticed.
    """
    dtype = tf.as_dtype(dtype)
    floating = [item for item in variables if tf.as_dtype(item.dtype).is_floating and tf.as_dtype(item.dtype) != dtype]
    return {id(item): tf.cast(tf.convert_to_tensor(item), dtype) for item in floating}


def measured_once(tokens: Any) -> Callable[..., Any]:
    """The `shape` of what is computed from tokens [rows, length]."""
    rows, length = tf.unstack(tf.shape(tokens))
    return functools.cache(lambda *sizes: tf.stack([rows, length, *sizes]))


# ---- the forms


def dense(layer: keras.layers.Dense, x: Any) -> Any:
    now, rows = current(), as_matrix(x)
    copy = now.kernels(layer)
    if copy is None:
        bias = [now.weight(layer.bias, x.dtype)] if layer.use_bias else []
        found = product(rows, now.weight(layer.kernel, x.dtype), *bias)
    else:
        found = copy.product(rows)
    # With nothing in between, TensorFlow joins product, bias and activation to one operation.
    return now.reshape_rows(layer.activation(found), x, layer.units)


def layer_norm(layer: keras.layers.LayerNormalization, x: Any) -> Any:
    x32, weight = at_least_float32(x), current().weight
    centred = x32 - tf.reduce_mean(x32, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    normal = centred * tf.math.rsqrt(variance + layer.epsilon)
    return tf.cast(normal * weight(layer.gamma, x32.dtype) + weight(layer.beta, x32.dtype), x.dtype)


def rms_norm(layer: tfl.RMSNormalization, x: Any) -> Any:
    x32 = at_least_float32(x)
    normal = x32 * tf.math.rsqrt(tf.reduce_mean(tf.square(x32), axis=-1, keepdims=True) + layer.epsilon)
    return tf.cast(normal * current().weight(layer.scale, x32.dtype), x.dtype)


def at_least_float32(x: Any) -> Any:
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


def feed_forward(layer: tfl.FeedForward, x: Any) -> Any:
    act, rows = activation(layer.activation), as_matrix(x)
    if layer.gated:
        inner = act(fused(layer.gate)(rows)) * fused(layer.up)(rows)
    else:
        inner = act(fused(layer.intermediate)(rows))
    return current().reshape_rows(fused(layer.output_dense)(inner), x, layer.output_dense.units)


def token_embedding(layer: tfl.TokenEmbedding, x: Any, reverse: bool = False) -> Any:
    """The product of the tied output layer without a transposed copy of the table."""
    if not reverse:
        return layer(x)
    now, rows = current(), as_matrix(x)
    copy = now.kernels(layer)
    if copy is not None:
        return now.reshape_rows(copy.product(rows), x, layer.input_dim)
    table = now.weight(layer.embeddings, x.dtype)
    if x.dtype == tf.float32:
        # With few rows this order takes three quarters of the time; in half precision it is the other way round.
        return now.reshape_rows(tf.transpose(tf.matmul(table, rows, transpose_b=True)), x, layer.input_dim)
    return now.reshape_rows(product(rows, table, transposed=True), x, layer.input_dim)


def attention_mask(layer: tfl.AttentionMask, token_ids: Any, segment_ids: Any = None, mask_input: Any = None) -> Any:
    """In a step only the row of the query, which sees all of the text so far, whatever the mask's kind."""
    now = current()
    if not now.stepping:
        return layer(token_ids, segment_ids=segment_ids, mask_input=mask_input)
    seen = tf.range(tf.shape(token_ids)[1])[None] <= now.first_query if mask_input is None else mask_input != 0
    return visible(per_key(seen), layer.compute_dtype)


def per_key(real: Any) -> Any:
    """[rows, keys] -> [rows, 1, 1, keys]; not by new axes in brackets, for which LiteRT has no form."""
    return tf.expand_dims(tf.expand_dims(real, 1), 1)


def visible(allowed: Any, dtype: str) -> Any:
    """A bias from booleans: 0 where a key may be seen."""
    return tf.where(allowed, tf.cast(0.0, dtype), tf.cast(hidden(dtype), dtype))


def relative_position_bias(layer: tfl.RelativePositionBias, queries: Any, keys: Any) -> Any:
    """In a step only the row of the query."""
    now = current()
    if not now.stepping:
        return layer(queries, keys)
    return layer.bias(now.first_query[None], tf.range(tf.shape(keys)[1]))


def attention(layer: tfl.MultiHeadAttention, x: Any, **arguments: Any) -> Any:
    """The layer's own call without what Keras does around it, which takes a part of the first call's time."""
    return layer.call(x, **arguments)


def is_not_quantized(layer: Any) -> bool:
    return layer.quantization_mode is None


def is_plain_norm(layer: keras.layers.LayerNormalization) -> bool:
    return layer.scale and layer.center and not getattr(layer, "rms_scaling", False)


def always(layer: Any) -> bool:
    return True


# Layer class -> (its form, for which of its layers).
FORMS: dict[type, tuple[Callable, Callable[[Any], bool]]] = {
    keras.layers.Dense: (dense, is_not_quantized),
    keras.layers.LayerNormalization: (layer_norm, is_plain_norm),
    keras.layers.Dropout: (lambda layer, x: x, always),
    tfl.Add: (lambda layer, tensors: functools.reduce(operator.add, tensors), always),
    tfl.AttentionMask: (attention_mask, always),
    tfl.FeedForward: (feed_forward, always),
    tfl.MultiHeadAttention: (attention, always),
    tfl.RMSNormalization: (rms_norm, always),
    tfl.RelativeAttention: (attention, always),
    tfl.RelativePositionBias: (relative_position_bias, always),
    tfl.RotaryAttention: (attention, always),
    tfl.TokenEmbedding: (token_embedding, is_not_quantized),
}


# ---- batched products


def many_rows_product(a: Any, b: Any, transpose_b: bool = False) -> Any:
    """Batched a @ b of [..., n, k] and [..., k, m], or [..., m, k] with transpose_b."""
    return tf.matmul(a, b, transpose_b=transpose_b)


def few_rows_product(a: Any, b: Any, transpose_b: bool = False) -> Any:
    """The same, fast for small n."""

    def eigens() -> Any:
        return tf.raw_ops.BatchMatMulV3(x=a, y=b, adj_y=transpose_b, Tout=a.dtype)

    if a.dtype in (tf.float32, tf.float64):
        return eigens()
    if a.dtype != tf.bfloat16:  # which has no kernel of Eigen's
        return many_rows_product(a, b, transpose_b)
    return tf.cond(tf.size(b) < SMALL, eigens, lambda: many_rows_product(a, b, transpose_b))
