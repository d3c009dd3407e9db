"""A model's training step, replaced: Keras' own except for where its gradients come from.

A `Batch` computes the loss and its gradients at the weights, and again with an offset added to one variable. The layers
see the perturbed value through `keras.StatelessScope`; it is never assigned, so there is nothing to restore.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfloader.errors import TrainingError
from tfloader.optimizers.building import build_optimizer, is_built
from tfloader.optimizers.extension import at_least_float32


class ReplacedStep:
    """Replaces the `train_step` of one model: until `remove()`, or as a context manager until the block ends.

    It may be put on before or after `compile()` and stays through later calls of it. A step put on before is replaced.
    Neither saving nor cloning the model sees it.

    Args:
        variable: the `keras.Variable` to which offsets are added.
        gradients: `gradients(batch)` -> a gradient or None for each of `batch.weights`, times `batch.scale`.

    Raises:
        TrainingError: Keras does not run on TensorFlow, or the model has a train_step of its own.
    """

    def __init__(self, model: keras.Model, variable: Any, gradients: Callable[[Batch], Sequence[Any]]) -> None:
        if keras.backend.backend() != "tensorflow":
            found = keras.backend.backend()
            raise TrainingError(
                f"Replaced steps need Keras on TensorFlow, found {found!r}. Set KERAS_BACKEND=tensorflow."
            )
        earlier = getattr(model.train_step, "__self__", None)
        if isinstance(earlier, ReplacedStep):
            earlier.remove()
        if getattr(model.train_step, "__func__", None) is not keras.Model.train_step:
            raise TrainingError(
                f"The model {model.name!r} has a train_step of its own, which this would silently replace. "
                "Use a model with Keras' own train_step."
            )
        self.model, self.variable, self.gradients = model, variable, gradients
        model.train_step = self.train_step
        self._forget_compiled_step()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on one batch, as `keras.Model.train_step`."""
        if not self.model.optimizer.built:
            # Variables are made where the scope ends, outside of the graph. Not in training, where layers of ours would
            # build the optimizer within the scope.
            if not is_built(self.model):
                with keras.StatelessScope():
                    self.model(keras.utils.unpack_x_y_sample_weight(data)[0], **_training(self.model.call, False))
            build_optimizer(self.model)
        batch = Batch(self.model, self.variable, data)
        gradients = self.gradients(batch)
        self.model.optimizer.apply_gradients(zip(gradients, batch.weights, strict=True))
        return self.model.compute_metrics(batch.x, batch.y, batch.y_pred, sample_weight=batch.sample_weight)

    def remove(self) -> None:
        """Gives the model its own step back. Does nothing where another step has taken this one's place."""
        if self.model.train_step == self.train_step:
            del self.model.train_step
            self._forget_compiled_step()

    def __enter__(self) -> ReplacedStep:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.remove()

    def _forget_compiled_step(self) -> None:
        if self.model.compiled:
            self.model.make_train_function(force=True)


class Batch:
    """One batch, and its loss at the weights and with one variable perturbed. Under tf.distribute: one replica's part.

    The first pass, at the weights, is Keras' own: it counts loss and metrics, updates what layers store (averages, the
    state of random numbers), and gives `y_pred`. Every later pass starts from what was stored before the first, so that
    it has the same dropout masks, and stores nothing. `weights` are the model's trainable variables.
    """

    def __init__(self, model: keras.Model, variable: Any, data: Any) -> None:
        self.model, self.variable = model, variable
        self.x, self.y, self.sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        self.y_pred: Any = None
        self.weights = model.trainable_weights
        if not self.weights:
            raise TrainingError(f"The model {model.name!r} has no trainable weights.")
        self._scale = tf.convert_to_tensor(model.optimizer.scale_loss(tf.ones(())))
        self._stored = [(item, tf.convert_to_tensor(item.value)) for item in model.non_trainable_variables]

    def at_weights(self, share: float = 1.0, penalties: Sequence[Callable[[Any], Any]] = ()) -> tuple[Any, list[Any]]:
        """The first pass: the loss's gradient with respect to the variable, and those with respect to the weights.

        The first is a tensor or IndexedSlices; the others carry the optimizer's loss scale.

        Args:
            share: factor of the loss in the gradients for the weights. With 0 and no penalties these are not computed.
            penalties: functions from the gradient with respect to the variable to a further term of the loss.
        """
        value, weights = self.variable.value, [weight.value for weight in self.weights]
        if not penalties:
            scaled, gradients = self._differentiate(self._first_loss, value, share)
            return self._unscaled(scaled, share), gradients
        with _watching(value, *weights) as outer:
            with _watching(value) as inner:
                loss = self._first_loss()
            gradient = self._unscaled(inner.gradient(loss, value, self._seed(loss)))
            total = share * loss + tf.add_n([tf.cast(penalty(gradient), loss.dtype) for penalty in penalties])
        return gradient, outer.gradient(total, weights, self._seed(total))

    def at_offset(
        self, offset: Any, share: float = 1.0, loss: Callable[[Any], Any] | None = None
    ) -> tuple[Any, list[Any]]:
        """A later pass, with the variable at its value + offset: `loss(that value)`, or else the model's loss.

        Arguments and results as in `at_weights`.
        """
        value = tf.cast(tf.cast(self.variable.value, offset.dtype) + offset, self.variable.dtype)
        scaled, gradients = self._differentiate(lambda: (loss or self._later_loss)(value), value, share)
        if share:  # the variable's gradient from elsewhere (a regularizer), and that of its perturbed value
            pairs = zip(self.weights, gradients, strict=True)
            gradients = [add(item, scaled) if weight is self.variable else item for weight, item in pairs]
        return self._unscaled(scaled, share), gradients

    def outputs(self, x: Any, value: Any = None) -> Any:
        """The model's outputs for x as in a later pass, with the variable at `value` (None: at its own)."""
        return self._later_call(x, tf.convert_to_tensor(self.variable.value) if value is None else value)[0]

    def _differentiate(self, forward: Callable[[], Any], value: Any, share: float) -> tuple[Any, list[Any]]:
        weights = [weight.value for weight in self.weights if share]
        with _watching(value, *weights) as tape:
            loss = forward()
        gradient, *gradients = tape.gradient(loss, [value, *weights], self._seed(loss, share))
        return gradient, gradients or [None] * len(self.weights)

    def _first_loss(self) -> Any:
        self.y_pred = self.model(self.x, **_training(self.model.call))
        loss = self._loss(self.y_pred)
        rows = tf.shape(next(item for item in keras.tree.flatten(self.x) if item is not None))[0]
        for metric in self.model.metrics:
            if metric.name == "loss":
                metric.update_state(loss * _replicas(loss), sample_weight=rows)
                break
        return loss

    def _later_loss(self, value: Any) -> Any:
        y_pred, losses = self._later_call(self.x, value)
        # compute_loss must run outside of the scope, which hides from it what layers added to the loss. So the counts
        # that it keeps are put back, and the variable's own regularizer is moved to the value.
        counts = [(count, tf.convert_to_tensor(count.value)) for count in self.model.metrics_variables]
        keras.layers.Layer.add_loss(self.model, losses)  # a Functional model has closed its own
        loss = self._loss(y_pred)
        for count, before in counts:
            count.assign(before)
        if (penalty := self.variable.regularizer) is not None:
            loss += tf.cast(penalty(value) - penalty(self.variable.value), loss.dtype) / _replicas(loss)
        return loss

    def _later_call(self, x: Any, value: Any) -> tuple[Any, list[Any]]:
        with keras.StatelessScope([*self._stored, (self.variable, value)], collect_losses=True) as scope:
            return self.model(x, **_training(self.model.call)), scope.losses

    def _loss(self, y_pred: Any) -> Any:
        compute = self.model.compute_loss
        return compute(self.x, self.y, y_pred, self.sample_weight, **_training(compute))

    def _seed(self, loss: Any, share: float = 1.0) -> Any:
        return tf.cast(self._scale, loss.dtype) * (share or 1.0)

    def _unscaled(self, gradient: Any, share: float = 1.0) -> Any:
        """The gradient with respect to the variable without the factors of `_seed`."""
        if gradient is None:
            raise TrainingError(
                f"The loss has no gradient with respect to {self.variable.path}. Choose a layer that the loss depends "
                "on, and one that is not under keras.RematScope."
            )
        scale = self._seed(gradient, share)
        if isinstance(gradient, tf.IndexedSlices):
            return tf.IndexedSlices(gradient.values / scale, gradient.indices, gradient.dense_shape)
        return gradient / scale


def add(first: Any, second: Any) -> Any:
    """The sum of two gradients, either of which may be None or IndexedSlices."""
    if first is None or second is None:
        return second if first is None else first
    return tf.convert_to_tensor(first) + tf.convert_to_tensor(second)


def summed_over_replicas(gradient: Any) -> Any:
    """A gradient summed over all replicas, dense, in float32 or better."""
    gradient = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradient)
    return tf.cast(tf.convert_to_tensor(gradient), at_least_float32(gradient.dtype))


def unit(direction: Any) -> Any:
    """direction / (its norm over all entries + 1e-8)."""
    return direction / (tf.norm(direction) + 1e-8)


def _replicas(like: Any) -> Any:
    return tf.cast(tf.distribute.get_strategy().num_replicas_in_sync, like.dtype)


@contextlib.contextmanager
def _watching(*sources: Any) -> Iterator[tf.GradientTape]:
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for source in sources:
            tape.watch(source)
        yield tape


def _training(function: Callable[..., Any], value: bool = True) -> dict[str, bool]:
    return {"training": value} if "training" in inspect.signature(function).parameters else {}
