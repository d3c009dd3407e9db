"""Losses over batches in which rows 2i and 2i + 1 belong together: CoSENT, SimCSE, R-Drop.

Such batches come from a generator or data set that makes them so. `fit` on arrays shuffles single rows and separates
the pairs: pass shuffle=False there. Under tf.distribute each replica sees the pairs of its own part of the batch.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.errors import LossError
from tfloader.faults import fault
from tfloader.losses.common import LOWEST, CheckedLoss, FunctionLoss, as_float32, log_sum_exp_with_one


def halves(x: Any) -> tuple[Any, Any]:
    """Rows 0, 2, 4 ... and rows 1, 3, 5 ... of a batch.

    Raises:
        LossError: the number of rows is odd (where it is known only at run time: the backend's own error).
    """
    if x.shape[0] is not None and x.shape[0] % 2:
        raise LossError(f"A batch of pairs has an even number of rows, found {x.shape[0]}.")
    pairs = ops.reshape(x, (-1, 2, *ops.shape(x)[1:]))
    return pairs[:, 0], pairs[:, 1]


def torn(labels: Any) -> Any:
    """[pairs]: the `fault` of those whose two rows have different labels."""
    first, second = halves(ops.convert_to_tensor(labels))
    same = ops.all(ops.reshape(ops.equal(first, second), (ops.shape(first)[0], -1)), axis=1)
    message = "Rows 2i and 2i + 1 have different labels. Was the batch shuffled? On arrays, fit needs shuffle=False."
    return fault(same, message, ops.stack([first, second], axis=1))


@keras.saving.register_keras_serializable("tfloader")
def cosent(y_true: Any, y_pred: Any, scale: float = 20.0) -> Any:
    """CoSENT (Su, kexue.fm/archives/8847, 2022): pairs that are more alike get the larger cosine.

    log(1 + sum of exp(scale * (cos_j - cos_i)) over all pairs i, j of the batch where label_i > label_j). The batch has
    one such number; every row gets it.

    Args:
        y_true: how alike each pair is, in any order of size; [rows] or [rows, 1], the same in both rows of a pair.
        y_pred: sentence vectors [2n, size], two and two a pair; or the cosines of n pairs, [n] or [n, 1].
        scale: 1 / temperature.
    """
    vectors = as_float32(y_pred)
    labels = ops.reshape(as_float32(y_true), (-1,))
    if len(vectors.shape) == 1 or vectors.shape[-1] == 1:
        cosines, unpaired = ops.reshape(vectors, (-1,)), 0.0
    else:
        unpaired = ops.sum(torn(labels))
        labels, _ = halves(labels)
        first, second = halves(ops.normalize(vectors, axis=-1))
        cosines = ops.sum(first * second, axis=-1)
    wrong = scale * (cosines[None, :] - cosines[:, None])
    loss = log_sum_exp_with_one(ops.where(labels[:, None] > labels[None, :], wrong, LOWEST), axis=(0, 1))
    return ops.broadcast_to(ops.add(loss, unpaired), (ops.shape(vectors)[0],))


@keras.saving.register_keras_serializable("tfloader")
def simcse(y_true: Any, y_pred: Any, temperature: float = 0.05) -> Any:
    """SimCSE (Gao et al., 2021, arXiv:2104.08821), of each row: to find its partner among all other rows.

    Args:
        y_true: the number of each row's pair, such as np.repeat(np.arange(n), 2), by which torn pairs are noticed; or
            the same number everywhere, which notices nothing.
        y_pred: sentence vectors [2n, size]; rows 2i and 2i + 1 are the same sentence under two dropout masks, or two
            sentences that mean the same.
        temperature: divides the cosines.
    """
    vectors = ops.normalize(as_float32(y_pred), axis=-1)
    first, second = halves(vectors)
    similar = ops.matmul(vectors, ops.transpose(vectors)) / temperature
    row = ops.arange(ops.shape(vectors)[0])
    similar = ops.where(ops.equal(row[:, None], row[None, :]), LOWEST, similar)
    partner = ops.sum(first * second, axis=-1) / temperature
    loss = ops.logsumexp(similar, axis=-1) - ops.repeat(partner, 2, axis=0)
    return ops.add(loss, ops.repeat(torn(y_true), 2, axis=0))


@keras.saving.register_keras_serializable("tfloader")
def symmetric_divergence(y_pred: Any) -> Any:
    """KL(p, q) + KL(q, p) of the softmax of rows 2i and 2i + 1: scores [2n, ..., classes] -> [2n, ...], twice each."""
    scores = ops.maximum(as_float32(y_pred), LOWEST)
    first, second = halves(ops.log_softmax(scores, axis=-1))
    total = ops.sum((ops.exp(first) - ops.exp(second)) * (first - second), axis=-1)
    return ops.repeat(total, 2, axis=0)


@keras.saving.register_keras_serializable("tfloader")
class CoSENT(FunctionLoss):
    """`cosent` as a Keras loss."""

    @public
    def __init__(self, scale: float = 20.0, **kwargs: Any) -> None:
        super().__init__(cosent, {"scale": scale}, **kwargs)


@keras.saving.register_keras_serializable("tfloader")
class SimCSE(FunctionLoss):
    """`simcse` as a Keras loss."""

    @public
    def __init__(self, temperature: float = 0.05, **kwargs: Any) -> None:
        super().__init__(simcse, {"temperature": temperature}, **kwargs)


@keras.saving.register_keras_serializable("tfloader")
class RDrop(CheckedLoss):
    """R-Drop (Liang et al., 2021, arXiv:2106.14448): a loss, and two passes of a sample under dropout should agree.

    Each row has loss + alpha / 4 * (KL(p, q) + KL(q, p)), which is half of the paper's sum over both passes. Where the
    label is the `ignore_class` of the loss, there is no divergence, and the mean counts what the loss lets it count.

    Args:
        loss: the loss that is trained anyway, on logits; None: cross-entropy of integer labels.
        alpha: weight of the agreement.

    y_true: as `loss` wants it, the same in rows 2i and 2i + 1. y_pred: logits [2n, ..., classes]; rows 2i and 2i + 1
    are the same sample.
    """

    @public
    def __init__(self, loss: Any = None, alpha: float = 4.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = keras.losses.get(loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        self.alpha = alpha

    def one_class_a_row(self, labels_shape: tuple, scores_shape: tuple) -> bool:
        one_hot = len(labels_shape) == len(scores_shape) == 2
        return one_hot or super().one_class_a_row(labels_shape, scores_shape)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        rows = getattr(self.loss, "call", self.loss)(y_true, y_pred)
        extra = self.alpha / 4 * symmetric_divergence(y_pred)
        if (ignored := getattr(self.loss, "ignore_class", None)) is not None:
            labels = ops.reshape(y_true, ops.shape(extra))
            extra = ops.where(ops.equal(labels, ops.cast(ignored, labels.dtype)), 0.0, extra)
        wrong = ops.repeat(torn(y_true), 2, axis=0)
        extra = ops.add(extra, ops.reshape(wrong, (-1, *[1] * (len(rows.shape) - 1))))
        # As a layer, so that the mask of the rows, by which Keras leaves ignored ones out of the mean, is handed on.
        return keras.layers.Lambda(lambda rows: rows + extra, mask=lambda _, mask: mask, autocast=False)(rows)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": keras.losses.serialize(self.loss), "alpha": self.alpha}
