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

from tfloader.errors import TrainingError
from tfloader.selection import layer_named
from tfloader.training.step import Batch, ReplacedStep, add, check_number, summed_over_replicas, unit
from tfloader.training.virtual_adversarial import VAT


class Attack:
    """Where the gradients of a step are taken: at the weights, then at tables that each increase the last one's loss.

    With g the loss's gradient with respect to the table over the whole batch, the perturbation r becomes
    r + step_size * g / (|g| + 1e-8), projected onto the ball |r| <= epsilon.

    Attributes:
        shares: factor of each pass's gradient in the step's: of the clean pass, then of each perturbed one. A pass
            with 0 serves only to find the next perturbation.
    """

    def __init__(self, epsilon: float = 0.0, step_size: float = 0.0, shares: Sequence[float] = (1.0,)) -> None:
        self.epsilon, self.step_size, self.shares = epsilon, step_size, shares
        check_number(self, "epsilon", epsilon)
        check_number(self, "step_size", step_size)

    def gradients(self, batch: Batch, penalties: Sequence[Callable[[Any], Any]] = ()) -> list[Any]:
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
        epsilon: the greatest norm of the perturbation.
        step_size: norm of one step.
        steps: how many; a training step costs 1 + steps passes.
        clean: True adds the gradient at the unperturbed weights, as common PyTorch recipes do.
    """

    def __init__(self, epsilon: float = 1.0, step_size: float = 0.3, steps: int = 3, clean: bool = False) -> None:
        check_number(self, "steps", steps, 1, numbers.Integral)
        super().__init__(epsilon, step_size, [float(clean)] + [0.0] * (steps - 1) + [1.0])


class FGM(PGD):
    """The fast gradient method (Miyato et al., 2017): one step of norm epsilon along the gradient.

    Args:
        epsilon: norm of the perturbation.
        clean: False trains on the gradient at the perturbed table alone, as bert4keras does (1.7 times the cost of a
            plain step). True adds the gradient at the unperturbed weights, as common PyTorch recipes do (twice the
            cost); the sum is not halved.
    """

    def __init__(self, epsilon: float = 1.0, clean: bool = False) -> None:
        super().__init__(epsilon, epsilon, 1, clean)


class FreeLB(Attack):
    """FreeLB (Zhu et al., 2020): trains on the mean of the gradients at all `steps` points of the ascent.

    The first point is no perturbation at all (the paper also draws it at random).

    Args:
        epsilon: the greatest norm of the perturbation.
        step_size: norm of one step.
        steps: points, and so passes; at least 2.
    """

    def __init__(self, epsilon: float = 1.0, step_size: float = 0.3, steps: int = 3) -> None:
        check_number(self, "steps", steps, 2, numbers.Integral)
        super().__init__(epsilon, step_size, [1 / steps] * steps)


class GradientPenalty:
    """Adds weight / 2 * |g|^2 to the loss, with g its gradient with respect to the table over the whole batch.

    The gradient is taken through twice, which every layer and loss must allow. The reported loss is without it.

    Args:
        weight: factor of the penalty.
        per_occurrence: True sums the squares for each token of the batch on its own, as bert4keras' example does; False
            sums the gradients of equal tokens first. It needs a table that is only looked up, not tied.
    """

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


def adversarial_training(
    model: keras.Model,
    embedding_name: str | keras.layers.Layer,
    *methods: Attack | GradientPenalty | VAT | float,
    epsilon: float | None = None,
) -> ReplacedStep:
    """Switches adversarial training on: `adversarial_training(model, "Embedding-Token", epsilon=0.5)`.

    From then on `fit` and `train_on_batch` train adversarially. Call it before or after `compile`; a second call takes
    the first one's place. The weights are never written but by the optimizer, and a saved model is the plain one.
    Reported loss and metrics are those of the clean pass, as in plain training. All passes of a step have the same
    dropout masks. Under tf.distribute the perturbation is that of the whole batch, the same on all replicas.

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
