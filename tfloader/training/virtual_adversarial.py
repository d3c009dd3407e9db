"""Virtual adversarial training: predictions that a perturbation of the table hardly changes. It needs no labels."""

from __future__ import annotations

import numbers
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfloader.errors import TrainingError
from tfloader.training.step import Batch, check_number, summed_over_replicas, unit


class VAT:
    """Adds weight * KL(p || q) to the loss (Miyato et al., 2018): p the predictions, q those at the worst nearby table.

    p is constant and has the same dropout masks as q. The direction in which q leaves p fastest is found by power
    iteration: from random numbers over the whole table, `iterations` times to the unit vector along the gradient of
    KL at xi times the last one, as in bert4keras.

    Args:
        epsilon: norm of the perturbation for q.
        xi: norm of the perturbation in the power iteration.
        iterations: of the power iteration; each costs a forward and a backward pass.
        weight: factor of the divergence.
        from_logits: the model's outputs are logits, not probabilities over the last axis. Divergences of several
            outputs are added; masked positions do not count.
        unlabelled: a tf.data.Dataset of batches as for `fit`, whose labels, if any, are not read: a step takes the next
            batch of it (each replica its own), over and over, and a resumed training begins anew with the first. None:
            the training batch.
        seed: of the random numbers, which also depend on the optimizer's iteration, so that a resumed training draws
            the same ones.

    Raises:
        TrainingError: an argument out of range; `unlabelled` under jit_compile.
        tf.errors.InvalidArgumentError: in training, when outputs taken for probabilities do not sum to 1.
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        xi: float = 10.0,
        iterations: int = 1,
        weight: float = 1.0,
        from_logits: bool = False,
        unlabelled: tf.data.Dataset | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in {"epsilon": epsilon, "xi": xi, "weight": weight}.items():
            check_number(self, name, value)
        check_number(self, "iterations", iterations, 1, numbers.Integral)
        self.epsilon, self.xi, self.iterations, self.weight, self.seed = epsilon, xi, iterations, weight, seed
        self.divergence = Divergence(from_logits)
        self._unlabelled = None if unlabelled is None else _endless(unlabelled)

    def gradients(self, batch: Batch) -> list[Any]:
        """The gradients with respect to `batch.weights`; after the batch's first pass."""
        x, outputs = batch.x, batch.y_pred
        if self._unlabelled is not None:
            if batch.model.jit_compile:
                raise TrainingError(
                    "XLA cannot read VAT's unlabelled batches within a step. Compile with jit_compile=False, or put "
                    "the unlabelled rows into the training batches with sample_weight 0."
                )
            x = keras.utils.unpack_x_y_sample_weight(next(self._unlabelled))[0]
            outputs = batch.outputs(x)
        p = [tf.stop_gradient(output) for output in keras.tree.flatten(outputs)]

        def divergence(value: Any) -> Any:
            q = keras.tree.flatten(batch.outputs(x, value))
            return tf.add_n([self.divergence(*pair) for pair in zip(p, q, strict=True)])

        step = tf.stack([tf.constant(self.seed, tf.int64), tf.cast(batch.model.optimizer.iterations.value, tf.int64)])
        direction = unit(tf.random.stateless_normal(batch.variable.shape, step))
        for _ in range(self.iterations):
            gradient, _ = batch.at_offset(self.xi * direction, 0.0, divergence)
            direction = unit(summed_over_replicas(gradient))
        return batch.at_offset(self.epsilon * direction, self.weight, divergence)[1]


class Divergence(keras.losses.Loss):
    """KL(p || q) over the last axis, of probabilities or logits."""

    def __init__(self, from_logits: bool = False) -> None:
        super().__init__(name="divergence")
        self.from_logits = from_logits

    def call(self, p: Any, q: Any) -> Any:
        log_p, log_q = self._log(p), self._log(q)
        return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)

    def _log(self, x: Any) -> Any:
        if self.from_logits:
            return ops.log_softmax(x)
        problem = (
            "VAT: the model's outputs do not sum to 1 over the last axis. Use VAT(from_logits=True) if they are logits."
        )
        tf.debugging.assert_near(tf.reduce_sum(x, -1), 1.0, rtol=0.0, atol=0.02, message=problem)
        return ops.log(ops.maximum(x, keras.config.epsilon()))


def _endless(batches: tf.data.Dataset) -> Any:
    if not isinstance(batches, tf.data.Dataset):
        raise TrainingError(f"VAT: unlabelled must be a tf.data.Dataset of batches, found {type(batches).__name__}.")
    if batches.cardinality() == 0:
        raise TrainingError("VAT: unlabelled has no batches.")
    return iter(batches.repeat())
