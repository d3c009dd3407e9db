"""Adversarial training in one line: training steps with the gradients at perturbed embeddings.

Every method perturbs the table of one layer. As in bert4keras, there is one perturbation for the whole batch, of the
shape of the table, whose size is its norm over the whole table; an output layer that is tied to the table has it too.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfloader.border import public
from tfloader.errors import TrainingError
from tfloader.faults import fault
from tfloader.optimizers.extension import check_number
from tfloader.selection import layer_named
from tfloader.training.step import Batch, ReplacedStep, add, summed_over_replicas, unit


class Attack:
    """Where the gradients of a step are taken: at the weights, then at tables that each increase the last one's loss.

    With g the loss's gradient with respect to the table over the whole batch, the perturbation r becomes
    r + step_size * g / (|g| + 1e-8), projected onto the ball |r| <= epsilon. `shares` are the factors of the passes'
    gradients in the step's, the clean pass first; a pass with 0 serves only to find the next perturbation.
    """

    def __init__(self, epsilon: float = 0.0, step_size: float = 0.0, shares: Sequence[float] = (1.0,)) -> None:
        self.epsilon, self.step_size, self.shares = epsilon, step_size, shares
        check_number(self, "epsilon", epsilon)
        check_number(self, "step_size", step_size)

    def gradients(self, batch: Batch, penalties: Sequence[Callable[[Any], Any]]) -> list[Any]:
        first, *later = self.shares
        gradient, total = batch.at_weights(first, penalties)
        offset = 0.0
        for share in later:
            offset += self.step_size * unit(summed_over_replicas(gradient))
            offset *= tf.minimum(1.0, tf.math.divide_no_nan(self.epsilon, tf.norm(offset)))  # onto the ball
            gradient, gradients = batch.at_offset(offset, share)
            total = [add(*pair) for pair in zip(total, gradients, strict=True)]
        return total


class PGD(Attack):
    """Projected gradient descent (Madry et al., 2018): `steps` small steps; trains on the gradient after the last.

    Args:
        epsilon, step_size: the greatest norm of the perturbation, and the norm of one step.
        steps: how many; a training step costs 1 + steps passes.
        clean: True adds the gradient at the unperturbed weights, as in PyTorch recipes.
    """

    @public
    def __init__(self, epsilon: float = 1.0, step_size: float = 0.3, steps: int = 3, clean: bool = False) -> None:
        check_number(self, "steps", steps, 1, kind=numbers.Integral)
        super().__init__(epsilon, step_size, [float(clean)] + [0.0] * (steps - 1) + [1.0])


class FGM(PGD):
    """The fast gradient method (Miyato et al., 2017): one step of norm epsilon along the gradient.

    Args:
        epsilon: norm of the perturbation.
        clean: False trains on the gradient at the perturbed table alone, as bert4keras does (1.7 times the cost of a
            plain step). True adds that at the unperturbed weights, as in PyTorch recipes (twice the cost), unhalved.
    """

    @public
    def __init__(self, epsilon: float = 1.0, clean: bool = False) -> None:
        super().__init__(epsilon, epsilon, 1, clean)


class FreeLB(Attack):
    """FreeLB (Zhu et al., 2020): trains on the mean of the gradients at all `steps` points of the ascent.

    The first point is no perturbation at all (the paper also draws it at random).

    Args:
        epsilon, step_size: the greatest norm of the perturbation, and the norm of one step.
        steps: points, and so passes; at least 2.
    """

    @public
    def __init__(self, epsilon: float = 1.0, step_size: float = 0.3, steps: int = 3) -> None:
        check_number(self, "steps", steps, 2, kind=numbers.Integral)
        super().__init__(epsilon, step_size, [1 / steps] * steps)


class GradientPenalty:
    """Adds weight / 2 * |g|^2 to the loss, with g its gradient with respect to the table over the whole batch.

    The gradient is taken through twice, which every layer and loss must allow. The reported loss is without it.

    Args:
        weight: factor of the penalty.
        per_occurrence: False sums the gradients of equal tokens before it squares; True squares them one by one, as
            bert4keras' example does, for a table that is only looked up, not tied.
    """

    @public
    def __init__(self, weight: float = 1.0, per_occurrence: bool = False) -> None:
        self.weight, self.per_occurrence = weight, per_occurrence
        check_number(self, "weight", weight)

    def __call__(self, gradient: Any) -> Any:
        """A term whose gradient is that of the penalty."""
        if not self.per_occurrence:
            # The product with the constant g has the gradient of |g|^2 / 2, and sums up over replicas.
            constant = tf.stop_gradient(summed_over_replicas(gradient))
            return self.weight * tf.reduce_sum(constant * tf.convert_to_tensor(gradient))
        if not isinstance(gradient, tf.IndexedSlices):
            raise TrainingError(
                "GradientPenalty(per_occurrence=True) needs the gradient of each token, but this table is also used "
                "otherwise (a tied output, or LoRA). Use per_occurrence=False."
            )
        return self.weight / 2 * tf.reduce_sum(gradient.values**2)


class VAT:
    """Adds weight * KL(p || q) to the loss (Miyato et al., 2018): p the predictions, q those at the worst nearby table.

    p is constant and has the same dropout masks as q. The direction in which q leaves p fastest is found by power
    iteration: from random numbers over the whole table, `iterations` times to the unit vector along the gradient of
    KL at xi times the last one, as in bert4keras.

    Args:
        epsilon, xi: norms of the perturbation for q, and in the power iteration.
        iterations: of the power iteration; each costs a forward and a backward pass.
        weight: factor of the divergence.
        from_logits: the outputs are logits, not probabilities over the last axis. Divergences of several outputs are
            added; masked positions do not count.
        unlabelled: a tf.data.Dataset of batches as for `fit`, whose labels are not read: a step takes the next one
            (each replica its own), over and over; a resumed training begins with the first. None: the training batch.
        seed: of the random numbers, which also depend on the optimizer's iteration, as a resumed training needs it.

    Raises:
        TrainingError: an argument out of range; `unlabelled` under jit_compile.
        tf.errors.InvalidArgumentError: in training, when outputs taken for probabilities do not sum to 1.
    """

    @public
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
        check_number(self, "iterations", iterations, 1, kind=numbers.Integral)
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
        problem = "VAT: the outputs do not sum to 1 over the last axis. Use VAT(from_logits=True) if they are logits."
        wrong = fault(ops.abs(ops.sum(x, axis=-1, keepdims=True) - 1) <= 0.02, problem, x)
        return ops.log(ops.maximum(x, keras.config.epsilon())) + ops.cast(wrong, x.dtype)


@public
def adversarial_training(
    model: keras.Model,
    embedding_name: str | keras.layers.Layer,
    *methods: Attack | GradientPenalty | VAT | float,
    epsilon: float | None = None,
) -> ReplacedStep:
    """Switches adversarial training on: `adversarial_training(model, "Embedding-Token", epsilon=0.5)`.

    From then on `fit` and `train_on_batch` train adversarially. Call it before or after `compile`; a second call takes
    the first one's place. Only the optimizer writes the weights, and a saved model is the plain one. Reported loss and
    metrics are those of the clean pass. All passes of a step have the same dropout masks, and under tf.distribute the
    perturbation of the whole batch.

    Args:
        model: any Keras model with Keras' own train_step.
        embedding_name: the layer, or its name, glob or `re:` expression (`tfloader.selection`), at any depth. Its
            variable "embeddings" is perturbed, or else its only weight; one that is frozen (LoRA) as well.
        methods: `FGM`, `PGD` or `FreeLB` (at most one; a number is FGM's epsilon), and any of `GradientPenalty` and
            `VAT`, whose gradients are added. Default: `FGM(epsilon)`.
        epsilon: FGM's; default 1.

    Returns:
        What switches it off: `.remove()`, or the end of a `with` block.

    Raises:
        TrainingError: no such layer (with the nearest names), a layer without a table, methods that exclude each other,
            a model with its own train_step.
    """
    if epsilon is not None or not methods:
        methods = (*methods, FGM(1.0 if epsilon is None else epsilon))
    chosen: list[Any] = [FGM(float(method)) if isinstance(method, numbers.Real) else method for method in methods]
    unknown = [method for method in chosen if not isinstance(method, (Attack, GradientPenalty, VAT))]
    attacks = [method for method in chosen if isinstance(method, Attack)]
    if unknown or len(attacks) > 1:
        found = ", ".join(type(method).__name__ for method in unknown or attacks)
        raise TrainingError(
            "adversarial_training takes one of FGM, PGD and FreeLB, which say where the gradient is taken, and any "
            f"number of GradientPenalty and VAT, which are added; found {found}."
        )
    attack = attacks[0] if attacks else Attack()
    penalties = [method for method in chosen if isinstance(method, GradientPenalty)]
    others = [method for method in chosen if isinstance(method, VAT)]

    def gradients(batch: Batch) -> list[Any]:
        total = attack.gradients(batch, penalties)
        for method in others:
            total = [add(*pair) for pair in zip(total, method.gradients(batch), strict=True)]
        return total

    return ReplacedStep(model, _table(model, embedding_name), gradients)


def _table(model: keras.Model, name: str | keras.layers.Layer) -> Any:
    layer = layer_named(model, name)
    weights = [weight for weight in layer.weights if keras.backend.is_float_dtype(weight.dtype)]
    tables = [weight for weight in weights if weight.name == "embeddings"] or weights
    if len(tables) == 1:
        return tables[0]
    if not layer.built:
        problem = "is not built yet. Call the model on a batch first"
    elif not tables:
        problem = f"has no floating-point weights to perturb, only {[weight.name for weight in layer.weights]}"
    else:
        problem = f"has no weight 'embeddings', and more than one other: {[weight.name for weight in tables]}"
    raise TrainingError(f"The layer {layer.name!r} {problem}.")


def _endless(batches: tf.data.Dataset) -> Any:
    if not isinstance(batches, tf.data.Dataset):
        raise TrainingError(f"VAT: unlabelled must be a tf.data.Dataset of batches, found {type(batches).__name__}.")
    if batches.cardinality() == 0:
        raise TrainingError("VAT: unlabelled has no batches.")
    return iter(batches.repeat())
