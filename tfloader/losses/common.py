"""What all losses share: arithmetic in float32 or wider, finite masks, labels in range, and a loss over a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

# Stands for minus infinity: exp() of it is 0, but its products and gradients are finite. Scores down here are masked.
LOWEST = -1e30


class FunctionLoss(keras.losses.Loss):
    """A Keras loss over `function(y_true, y_pred, **options)`, which gives one value a row; it notes the options."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function, self.options = function, dict(options)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred, **self.options)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}


def as_float32(x: Any) -> Any:
    """As float32; float64 stays."""
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def log_sum_exp_with_one(terms: Any, axis: Any) -> Any:
    """log(1 + sum of exp(terms)) over an axis or axes; 0 where every term is masked."""
    return ops.softplus(ops.logsumexp(terms, axis=axis))


def sparse_labels(y_true: Any, y_pred: Any, ignore_class: int | None = None) -> Any:
    """Labels [...] or [..., 1] as int32 [...], checked, for scores [..., classes]."""
    labels = ops.convert_to_tensor(y_true)
    if len(labels.shape) == len(y_pred.shape):
        labels = ops.squeeze(labels, axis=-1)
    return checked_labels(labels, ops.shape(y_pred)[-1], ignore_class)


def checked_labels(labels: Any, classes: Any, ignore_class: int | None = None) -> Any:
    """Labels as int32. On TensorFlow one that is neither from 0 to classes - 1 nor `ignore_class` is an error.

    The error is an InvalidArgumentError; functions that XLA compiles drop such checks.
    """
    labels = ops.cast(labels, "int32")
    good = ops.logical_and(labels >= 0, labels < classes)
    if ignore_class is not None:
        good = ops.logical_or(good, ops.equal(labels, ignore_class))
    require(good, "A label is not from 0 to (number of classes - 1). Number of classes, and labels:", classes, labels)
    return labels


def require(condition: Any, message: str, *values: Any) -> None:
    """On TensorFlow, an error with the message and values where a condition does not hold everywhere."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.debugging.Assert(tf.reduce_all(condition), [message, *values], summarize=64)
