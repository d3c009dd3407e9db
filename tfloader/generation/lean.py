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
from tfloader.layers.activations import activation

# From this size on oneDNN's batched product is faster than Eigen's in half precision; below, its start costs more.
SMALL = 2**18
# Bytes up to which three kernels side by side make a step faster (by 4 to 9%), at the price of a copy.
SMALL_KERNEL = 2**22


def lean(layer: Any) -> Callable[..., Any]:
    """What computes `layer(x)` in inference for x [rows, length, size] of the layer's compute dtype."""
    form, condition = FORMS.get(type(layer), (None, None))
    return functools.partial(form, layer) if form and condition(layer) else layer


def dense(layer: keras.layers.Dense, x: Any) -> Any:
    bias = [weight(layer.bias, x.dtype)] if layer.use_bias else []
    return layer.activation(product(x, weight(layer.kernel, x.dtype), *bias))


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
    act = activation(layer.activation)
    inner = act(lean(layer.gate)(x)) * lean(layer.up)(x) if layer.gated else act(lean(layer.intermediate)(x))
    return lean(layer.output_dense)(inner)


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


def product(x: Any, kernel: Any, bias: Any = None) -> Any:
    """x [rows, length, size] times a kernel [size, units]."""
    flat = tf.matmul(tf.reshape(x, (-1, kernel.shape[0])), kernel)
    return unflatten(flat if bias is None else tf.nn.bias_add(flat, bias), x)


def is_small(layer: Any) -> bool:
    """Whether products with this layer's kernel are over before all processors have woken up to share the work."""
    if type(layer) is not keras.layers.Dense or not is_plain_dense(layer):
        return False
    inputs, units = layer.kernel.shape
    return inputs * units * tf.as_dtype(layer.compute_dtype).size < SMALL_KERNEL


def side_by_side(layers: Iterable[keras.layers.Dense], dtype: Any) -> list[Any]:
    """Kernel, and bias if they have one, of a dense layer that gives what these give of the same input."""
    kernels = [weight(layer.kernel, dtype) for layer in layers]
    biases = [weight(layer.bias, dtype) for layer in layers if layer.use_bias]
    return [tf.concat(parts, axis=-1) for parts in (kernels, biases) if parts]


def unflatten(flat: Any, like: Any) -> Any:
    """[rows * length, size] -> [rows, length, size], as `like` has rows and length."""
    if like.shape[1] is not None:
        return tf.reshape(flat, (-1, like.shape[1], flat.shape[1]))
    return tf.reshape(flat, (tf.shape(like)[0], tf.shape(like)[1], flat.shape[1]))


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
