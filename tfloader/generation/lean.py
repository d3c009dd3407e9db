"""Layers in inference as few TensorFlow operations: what is not weight products costs a step's time, and all of it the
first call's.

`lean(layer)` is the layer itself, or a function that computes the same. The forms are those that TensorFlow fuses or
runs fastest on CPUs; they were found by measuring (see benchmarks/README.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from tfloader import layers as tfl
from tfloader.generation.products import copy_of, product
from tfloader.layers.activations import activation
from tfloader.layers.products import as_matrix

# From this size on oneDNN's batched product is faster than Eigen's in half precision; below, its start costs more.
SMALL = 2**18


def lean(layer: Any) -> Callable[..., Any]:
    """What computes `layer(x)` in inference for x [rows, length, size] or [rows, size] of the layer's compute dtype."""
    form, condition = FORMS.get(type(layer), (None, None))
    return functools.partial(form, layer) if form and condition(layer) else layer


def dense(layer: keras.layers.Dense, x: Any) -> Any:
    rows, copy = as_matrix(x), copy_of(layer)
    if copy is None:
        bias = [weight(layer.bias, x.dtype)] if layer.use_bias else []
        found = product(rows, weight(layer.kernel, x.dtype), *bias)
    else:
        found = copy.product(rows)
    # With nothing in between, TensorFlow joins product, bias and activation to one operation.
    return shaped(layer.activation(found), x, layer.units)


def layer_norm(layer: keras.layers.LayerNormalization, x: Any) -> Any:
    wide = widened(x)
    centred = wide - tf.reduce_mean(wide, axis=-1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
    normal = centred * tf.math.rsqrt(variance + layer.epsilon)
    return tf.cast(normal * weight(layer.gamma, wide.dtype) + weight(layer.beta, wide.dtype), x.dtype)


def rms_norm(layer: tfl.RMSNormalization, x: Any) -> Any:
    wide = widened(x)
    normal = wide * tf.math.rsqrt(tf.reduce_mean(tf.square(wide), axis=-1, keepdims=True) + layer.epsilon)
    return tf.cast(normal * weight(layer.scale, wide.dtype), x.dtype)


def feed_forward(layer: tfl.FeedForward, x: Any) -> Any:
    act, rows = activation(layer.activation), as_matrix(x)
    inner = act(lean(layer.gate)(rows)) * lean(layer.up)(rows) if layer.gated else act(lean(layer.intermediate)(rows))
    return shaped(lean(layer.output_dense)(inner), x, layer.output_dense.units)


def is_plain_dense(layer: keras.layers.Dense) -> bool:
    return layer.quantization_mode is None


def is_plain_norm(layer: keras.layers.LayerNormalization) -> bool:
    return layer.scale and layer.center and not getattr(layer, "rms_scaling", False)


# Layer class -> (its form, for which of its layers). A class derived from these is called as it is.
FORMS: dict[type, tuple[Callable, Callable[[Any], bool]]] = {
    keras.layers.Dense: (dense, is_plain_dense),
    keras.layers.LayerNormalization: (layer_norm, is_plain_norm),
    tfl.RMSNormalization: (rms_norm, lambda layer: True),
    tfl.FeedForward: (feed_forward, lambda layer: True),
}


# ---- their parts


_held: ContextVar[dict[int, Any]] = ContextVar("held")


@contextmanager
def held(variables: Iterable[Any], dtype: Any) -> Iterator[None]:
    """Within it, weights that are stored in another dtype than `dtype` were cast once, where it begins: before a loop.

    They are cast anew at each call of the graph, so that training between two calls is noticed.
    """
    dtype = tf.as_dtype(dtype)
    floating = [item for item in variables if tf.as_dtype(item.dtype).is_floating and tf.as_dtype(item.dtype) != dtype]
    token = _held.set({id(item): tf.cast(tf.convert_to_tensor(item), dtype) for item in floating})
    try:
        yield
    finally:
        _held.reset(token)


def weight(variable: Any, dtype: Any) -> Any:
    """A variable's value in the dtype that is computed in."""
    found = _held.get({}).get(id(variable))
    return found if found is not None and found.dtype == dtype else tf.cast(tf.convert_to_tensor(variable), dtype)


def widened(x: Any) -> Any:
    """In float32 at least."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


_shape: ContextVar[Callable[..., Any] | None] = ContextVar("shape", default=None)


@contextmanager
def sequences(tokens: Any) -> Iterator[None]:
    """Within it, all tensors of unknown length are as long as `tokens` [rows, length], which is measured just once."""
    rows, length = tf.unstack(tf.shape(tokens))
    token = _shape.set(functools.cache(lambda *sizes: tf.stack([rows, length, *sizes])))
    try:
        yield
    finally:
        _shape.reset(token)


def shaped(x: Any, like: Any, *sizes: int) -> Any:
    """x as [rows, length, *sizes], where `like` is [rows, length, ...]; as it is, where `like` is a matrix."""
    if len(like.shape) == 2:
        return x
    if like.shape[1] is not None:
        return tf.reshape(x, (-1, like.shape[1], *sizes))
    shape = _shape.get() or (lambda *sizes: (*tf.unstack(tf.shape(like)[:2]), *sizes))
    return tf.reshape(x, shape(*sizes))


def many_rows_product(a: Any, b: Any, turned: bool = False) -> Any:
    """Batched a @ b of [..., n, k] and [..., k, m]; turned: b is [..., m, k]."""
    return tf.matmul(a, b, transpose_b=turned)


def few_rows_product(a: Any, b: Any, turned: bool = False) -> Any:
    """The same, fast for small n."""

    def eigens() -> Any:
        return tf.raw_ops.BatchMatMulV3(x=a, y=b, adj_y=turned, Tout=a.dtype)

    if a.dtype in (tf.float32, tf.float64):
        return eigens()
    if a.dtype != tf.bfloat16:  # which has no kernel of Eigen's
        return many_rows_product(a, b, turned)
    return tf.cond(tf.size(b) < SMALL, eigens, lambda: many_rows_product(a, b, turned))


def softmax(scores: Any, dtype: Any) -> Any:
    """Over the last axis, in float32: sums over hundreds of keys lose digits in half precision."""
    scores = tf.cast(scores, tf.float32)
    shares = tf.exp(scores - tf.reduce_max(scores, axis=-1, keepdims=True))
    return tf.cast(shares / tf.reduce_sum(shares, axis=-1, keepdims=True), dtype)
