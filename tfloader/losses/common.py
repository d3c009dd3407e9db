"""What all losses share: arithmetic in float32 or wider, finite masks, labels in range, and a loss over a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from tfloader.errors import LossError
from tfloader.faults import checked_ids
from tfloader.keras_private import training_arguments
from tfloader.optimizers.building import build_optimizer_around_loss

# Stands for minus infinity: exp() of it is 0, but its products and gradients are finite. Scores down here are masked.
LOWEST = -1e30


class CheckedLoss(keras.losses.Loss):
    """A Keras loss that refuses labels and weights which Keras has made something else of.

    Raises:
        LossError: rows of several labels are weighed by `class_weight`; labels or weights have another number of axes
            than in an earlier call of `fit`.
    """

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        build_optimizer_around_loss()
        self.check(y_true, y_pred, sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def check(self, y_true: Any, y_pred: Any, sample_weight: Any) -> None:
        for name, value in {"y": y_true, "sample_weight": sample_weight}.items():
            if getattr(getattr(value, "shape", None), "rank", 0) is None:
                raise LossError(
                    f"{self.name}: {name} has another number of axes than in an earlier call, and TensorFlow takes it "
                    "for one of any number. Give it as it was ([rows], say, or [rows, 1]), or compile the model again."
                )
        if not self.one_class_a_row(*(tuple(getattr(x, "shape", (1,))) for x in (y_true, y_pred))):
            refuse_class_weight()

    def one_class_a_row(self, labels_shape: tuple, scores_shape: tuple) -> bool:
        """Whether the labels say one class for each row, to which `class_weight` can refer."""
        return len(labels_shape) == 1 or labels_shape[1:] == (1,)


def refuse_class_weight() -> None:
    """Raises a LossError within a `fit` or `train_on_batch` that has a class_weight."""
    if training_arguments().get("class_weight") is not None:
        raise LossError(
            "class_weight: Keras would weigh each row by the position of its largest label. A row of several labels "
            "has no class: give sample_weight [batch], one number a row."
        )


class FunctionLoss(CheckedLoss):
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
