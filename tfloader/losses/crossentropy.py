"""Cross-entropy of one smoothed integer label, and of several labels at once.

For one-hot labels there is Keras' CategoricalCrossentropy(label_smoothing=...).

Several labels (Su, 2020, 2022), every positive score above 0, every negative one below:
log(1 + sum over negatives of exp(s)) + log(1 + sum over positives of exp(-s)); kexue.fm/archives/7359, for soft labels
kexue.fm/archives/9064. No class needs a weight: a few positives among a million negatives are fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.faults import fault
from tfloader.losses.common import LOWEST, FunctionLoss, as_float32, checked_labels, class_labels, log_sum_exp_with_one


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
    labels = class_labels(y_true, logits)
    ignored = ops.zeros_like(labels, "bool") if ignore_class is None else ops.equal(labels, ignore_class)
    labels, wrong = checked_labels(labels, ops.shape(logits)[-1], ignored)
    real = logits > LOWEST
    logits = ops.where(real, logits, LOWEST)
    total = ops.logsumexp(logits, axis=-1)
    own = ops.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    mean = ops.sum(ops.where(real, logits, 0.0), axis=-1) / ops.sum(ops.cast(real, own.dtype), axis=-1)
    loss = ops.add(total - (1 - label_smoothing) * own - label_smoothing * mean, wrong)
    return ops.where(ignored, ops.zeros_like(loss), loss)


@keras.saving.register_keras_serializable("tfloader")
class SmoothedSparseCategoricalCrossentropy(FunctionLoss):
    """`smoothed_sparse_categorical_crossentropy` as a Keras loss."""

    @public
    def __init__(self, label_smoothing: float = 0.1, ignore_class: int | None = None, **kwargs: Any) -> None:
        options = {"label_smoothing": label_smoothing, "ignore_class": ignore_class}
        super().__init__(smoothed_sparse_categorical_crossentropy, options, **kwargs)
        self.ignore_class = ignore_class


@keras.saving.register_keras_serializable("tfloader")
def multilabel_categorical_crossentropy(y_true: Any, y_pred: Any, axis: int | Sequence[int] = -1) -> Any:
    """The loss of each row, float32 (float64 for float64 scores).

    Args:
        y_true: labels from 0 to 1, of the shape of y_pred.
        y_pred: scores without activation; those of -1e30 or less (-inf included) are masked and count nowhere.
        axis: where the classes are: -1, or (-2, -1) for the scores [..., start, end] of a GlobalPointer.
    """
    scores = as_float32(y_pred)
    labels = ops.cast(y_true, scores.dtype)
    real = scores > LOWEST
    axis = axis if isinstance(axis, int) else tuple(axis)

    def one_side(scores, weights):
        counted = ops.logical_and(real, weights > 0)
        terms = scores + ops.log(ops.where(counted, weights, ops.ones_like(weights)))
        return log_sum_exp_with_one(ops.where(counted, terms, LOWEST), axis)

    # Means of labels may be a rounding above 1.
    fits = ops.logical_or(ops.logical_and(labels >= 0, labels <= 1 + 1e-6), ops.logical_not(real))
    wrong = ops.sum(fault(fits, "A label is not from 0 to 1.", labels), axis=axis)
    return ops.add(one_side(scores, 1 - labels) + one_side(-scores, labels), wrong)


@keras.saving.register_keras_serializable("tfloader")
def sparse_multilabel_categorical_crossentropy(y_true: Any, y_pred: Any, mask_zero: bool = False) -> Any:
    """The same loss for labels given as ids, of each row.

    Args:
        y_true: ids of the positive classes [..., k]; an id that comes twice counts once.
        y_pred: scores without activation [..., classes], or [..., n, m] where an id is row * m + column.
        mask_zero: class 0 does not exist, and id 0 fills up rows that have fewer than k labels.
    """
    y_true = ops.convert_to_tensor(y_true)
    rows, labels = ops.shape(y_true)[:-1], ops.shape(y_true)[-1]
    scores = ops.reshape(as_float32(y_pred), (math.prod(rows), -1))
    count, classes = ops.shape(scores)
    ids, wrong = checked_labels(ops.reshape(y_true, (count, labels)), classes)
    where = ops.stack([ops.broadcast_to(ops.arange(count)[:, None], ops.shape(ids)), ids], axis=-1)
    times = ops.scatter(ops.reshape(where, (-1, 2)), ops.ones_like(ops.reshape(ids, (-1,))), (count, classes))
    first = 1 if mask_zero else 0
    loss = multilabel_categorical_crossentropy(times[:, first:] > 0, scores[:, first:])
    return ops.reshape(ops.add(loss, ops.sum(wrong, axis=-1)), rows)


@keras.saving.register_keras_serializable("tfloader")
class MultilabelCategoricalCrossentropy(FunctionLoss):
    """`multilabel_categorical_crossentropy` as a Keras loss."""

    @public
    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any) -> None:
        axis = axis if isinstance(axis, int) else list(axis)
        super().__init__(multilabel_categorical_crossentropy, {"axis": axis}, **kwargs)


@keras.saving.register_keras_serializable("tfloader")
class SparseMultilabelCategoricalCrossentropy(FunctionLoss):
    """`sparse_multilabel_categorical_crossentropy` as a Keras loss.

    Keras hands labels to losses as float32, which holds ids up to 2 ** 24 exactly.
    """

    @public
    def __init__(self, mask_zero: bool = False, **kwargs: Any) -> None:
        super().__init__(sparse_multilabel_categorical_crossentropy, {"mask_zero": mask_zero}, **kwargs)
