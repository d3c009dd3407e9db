"""Label smoothing for integer labels; for one-hot ones there is Keras' CategoricalCrossentropy(label_smoothing=...)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfloader.losses.common import LOWEST, FunctionLoss, as_float32, sparse_labels


@keras.saving.register_keras_serializable("tfloader")
def smoothed_sparse_categorical_crossentropy(
    y_true: Any, y_pred: Any, label_smoothing: float = 0.1, ignore_class: int | None = None
) -> Any:
    """(1 - e) * cross-entropy of the label + e * mean cross-entropy of all classes, of each row (Szegedy et al., 2015).

    The same number as Keras' CategoricalCrossentropy gives for one-hot labels, without the one-hot array, which for a
    vocabulary is as large as the logits.

    Args:
        y_true: integer labels [...] or [..., 1].
        y_pred: logits [..., classes]; those of -1e30 or less (-inf included) are of classes that do not exist.
        label_smoothing: e; 0 is plain cross-entropy.
        ignore_class: rows with this label (say -100) have loss 0. They still count in the mean that Keras takes.
            Padding that should not count has a mask, or sample weight 0 and reduction "mean_with_sample_weight".
    """
    logits = as_float32(y_pred)
    labels = sparse_labels(y_true, logits, ignore_class)
    real = logits > LOWEST
    logits = ops.where(real, logits, LOWEST)
    total = ops.logsumexp(logits, axis=-1)
    ignored = ops.zeros_like(labels, "bool") if ignore_class is None else ops.equal(labels, ignore_class)
    own = ops.take_along_axis(logits, ops.where(ignored, 0, labels)[..., None], axis=-1)[..., 0]
    mean = ops.sum(ops.where(real, logits, 0.0), axis=-1) / ops.sum(ops.cast(real, own.dtype), axis=-1)
    loss = total - (1 - label_smoothing) * own - label_smoothing * mean
    return ops.where(ignored, ops.zeros_like(loss), loss)


@keras.saving.register_keras_serializable("tfloader")
class SmoothedSparseCategoricalCrossentropy(FunctionLoss):
    """`smoothed_sparse_categorical_crossentropy` as a Keras loss."""

    def __init__(self, label_smoothing: float = 0.1, ignore_class: int | None = None, **kwargs: Any) -> None:
        options = {"label_smoothing": label_smoothing, "ignore_class": ignore_class}
        super().__init__(smoothed_sparse_categorical_crossentropy, options, **kwargs)
