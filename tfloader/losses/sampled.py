"""Output layers for big vocabularies that train on a few sampled classes a step: sampled softmax and NCE.

Both draw noise classes k with replacement from q and correct their scores by log(count * q(k)). Every noise
distribution is drawn from exactly, by the alias method (Walker, 1977).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.border import public
from tfloader.errors import LossError
from tfloader.losses.common import LOWEST, checked_labels
from tfloader.losses.layer import Loss, floats_as_float32


def log_uniform(num_classes: int) -> np.ndarray:
    """q(k) = log((k + 2) / (k + 1)) / log(num_classes + 1): Zipf's law, for ids sorted from frequent to rare."""
    k = np.arange(num_classes, dtype="float64")
    return np.log1p(1 / (k + 1)) / math.log(num_classes + 1)


def alias_table(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(keep, alias): a uniform column k, kept with probability keep[k] and else alias[k], is drawn as wanted."""
    keep = np.asarray(probabilities, "float64") * len(probabilities)
    alias = np.arange(len(keep))
    small, large = list(np.flatnonzero(keep < 1)), list(np.flatnonzero(keep >= 1))
    while small and large:
        little, big = small.pop(), large[-1]
        alias[little] = big
        keep[big] -= 1 - keep[little]
        if keep[big] < 1:
            small.append(large.pop())
    keep[small + large] = 1  # what rounding left over
    return keep, alias


@keras.saving.register_keras_serializable("tfloader")
class SampledSoftmax(Loss):
    """A softmax output layer that trains on sampled classes: called with [hidden, labels], it adds its loss.

    In training the loss is -s(y) + log(exp(s(y)) + sum over noise k != y of exp(s(k) - log(count * q(k)))). The sum of
    exponentials has that of the full softmax as its expectation (Bengio and Senecal, 2003; Blanc and Rendle, 2018).
    Otherwise (evaluate) it is the exact cross-entropy over all classes. One set of noise serves the whole batch.

    TensorFlow's tf.nn.sampled_softmax_loss corrects s(y) too (Jean et al., 2014), which biases that sum.

    Args:
        num_classes: size of the vocabulary.
        num_sampled: noise classes a step.
        noise: how often each class is drawn, in any unit (counts of tokens); None: `log_uniform`, for ids sorted from
            frequent to rare.
        use_bias: whether each class has a bias.
        seed: of the draws.
        output_axis: what to pass on; see `Loss`. Default: hidden.

    hidden: [..., size]; labels: integers [...]. Masked positions of hidden do not count. `logits(hidden)` gives the
    scores of all classes, for inference. The table is `kernel` [num_classes, size].
    """

    @public
    def __init__(
        self,
        num_classes: int,
        num_sampled: int,
        noise: Sequence[float] | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        seed: int | None = None,
        output_axis: int | Sequence[int] | None = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(output_axis, **kwargs)
        self.num_classes, self.num_sampled, self.use_bias = num_classes, num_sampled, use_bias
        self.noise = None if noise is None else [float(count) for count in noise]
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.seed, self.seed_generator = seed, keras.random.SeedGenerator(seed)
        counts = log_uniform(num_classes) if noise is None else np.asarray(self.noise, "float64")
        if counts.shape != (num_classes,) or not np.isfinite(counts).all() or counts.min() <= 0:
            raise LossError(
                f"{self.name}: noise must give each of the {num_classes} classes a number above 0, found shape "
                f"{counts.shape}, smallest {counts.min() if counts.size else None}. Add 1 to counts that are 0."
            )
        self.probabilities = counts / counts.sum()
        self._keep, self._alias = alias_table(self.probabilities)

    def build(self, input_shape: Any) -> None:
        size = input_shape[0][-1]
        self.kernel = self.add_weight(
            name="kernel", shape=(self.num_classes, size), initializer=self.kernel_initializer
        )
        self.bias = self.add_weight((self.num_classes,), "zeros", name="bias") if self.use_bias else None

    def call(self, inputs: Any, mask: Any = None, training: bool = False) -> Any:
        hidden, labels = floats_as_float32(inputs)
        labels, wrong = checked_labels(labels, self.num_classes)
        loss = self.sampled_loss(hidden, labels, self.draw()) if training else self.full_loss(hidden, labels)
        loss = ops.add(loss, wrong)
        if mask is not None and mask[0] is not None:
            real = ops.cast(mask[0], loss.dtype)
            loss = ops.sum(loss * real) / ops.maximum(ops.sum(real), 1)
        return self.add_and_pass_on(loss, inputs)

    def draw(self) -> Any:
        """[num_sampled] noise classes."""
        column = keras.random.randint((self.num_sampled,), 0, self.num_classes, seed=self.seed_generator)
        keep, alias = ops.convert_to_tensor(self._keep, "float32"), ops.convert_to_tensor(self._alias, "int32")
        kept = keras.random.uniform((self.num_sampled,), seed=self.seed_generator) < ops.take(keep, column)
        return ops.where(kept, column, ops.take(alias, column))

    def logits(self, hidden: Any) -> Any:
        """Scores of all classes, [..., num_classes]."""
        return self._with_bias(ops.matmul(hidden, ops.transpose(ops.cast(self.kernel, hidden.dtype))), slice(None))

    def full_loss(self, hidden: Any, labels: Any) -> Any:
        """Exact cross-entropy, [...]."""
        return keras.losses.sparse_categorical_crossentropy(labels, self.logits(hidden), from_logits=True)

    def sampled_loss(self, hidden: Any, labels: Any, noise: Any) -> Any:
        """The loss [...] with given noise classes [num_sampled]."""
        log_counts = ops.convert_to_tensor(np.log(self.num_sampled * self.probabilities), "float32")
        true = self._with_bias(ops.sum(hidden * ops.take(self.kernel, labels, axis=0), axis=-1), labels)
        sampled = self._with_bias(ops.matmul(hidden, ops.transpose(ops.take(self.kernel, noise, axis=0))), noise)
        hits = ops.equal(labels[..., None], noise)
        return self.contrast(true, sampled, hits, ops.take(log_counts, labels), ops.take(log_counts, noise))

    def contrast(self, true: Any, sampled: Any, hits: Any, true_log_count: Any, log_counts: Any) -> Any:
        """The loss [...] from the scores of the labels [...] and of the noise [..., num_sampled].

        Args:
            hits: where a noise class is the label.
            true_log_count, log_counts: log(count * q) of the labels [...] and of the noise [num_sampled].
        """
        others = ops.where(hits, LOWEST, sampled - log_counts)
        return ops.logsumexp(ops.concatenate([true[..., None], others], axis=-1), axis=-1) - true

    def _with_bias(self, scores: Any, classes: Any) -> Any:
        if self.bias is None:
            return scores
        bias = self.bias if isinstance(classes, slice) else ops.take(self.bias, classes)
        return scores + ops.cast(bias, scores.dtype)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("num_classes", "num_sampled", "noise", "use_bias", "seed")}
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), **own, "kernel_initializer": initializer}


@keras.saving.register_keras_serializable("tfloader")
class NoiseContrastiveEstimation(SampledSoftmax):
    """The same layer trained to tell labels from noise (Gutmann and Hyvarinen, 2010; Mnih and Teh, 2012).

    In training the loss is the cross-entropy of "is this the label" with scores s(k) - log(count * q(k)), over the
    label and all noise classes. Its optimum has s = log p: scores that are normalised by themselves.
    """

    def contrast(self, true: Any, sampled: Any, hits: Any, true_log_count: Any, log_counts: Any) -> Any:
        return ops.softplus(true_log_count - true) + ops.sum(ops.softplus(sampled - log_counts), axis=-1)
