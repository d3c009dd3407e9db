"""What all losses share: arithmetic in float32 or wider, finite masks, labels in range, and a loss over a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from tfloader.faults import checked_ids

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


def class_labels(y_true: Any, y_pred: Any) -> Any:
    """Labels [...] or [..., 1] as [...], for scores [..., classes]."""
    labels = ops.convert_to_tensor(y_true)
    return ops.squeeze(labels, axis=-1) if len(labels.shape) == len(y_pred.shape) else labels


def checked_labels(labels: Any, classes: Any, ignored: Any = None) -> tuple[Any, Any]:
    """Labels as int32 from 0 to classes - 1, and the `fault` of those that are none and not `ignored`."""
    return checked_ids(labels, classes, "A label is not a whole number from 0 to (number of classes - 1).", ignored)
