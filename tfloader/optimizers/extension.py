"""What the optimizers of tfloader share: gradients made whole, and the base of the parts that `extend` combines."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import keras

from tfloader.errors import TrainingError
from tfloader.keras_private import ClipHook
from tfloader.optimizers.building import outside_of_the_graph


class WholeGradients(ClipHook):
    """Before a Keras optimizer class: sums what belongs to one gradient, before it is squared or clipped.

    A TensorFlow embedding's gradient lists a row once for each place where its token stands, and Keras (3.15) squares
    and clips these entries one by one: its Adam takes a sum of squares for the square of the sum. Under a strategy with
    several replicas it clips each replica's share.

    A subclass makes what it keeps for the variables in `prepare`. Those arguments of each class that are attributes of
    the same name are its `saved_arguments`; `get_config` gives them all.
    """

    saved_arguments: tuple[str, ...] = ()

    def build(self, variables: Sequence[Any]) -> None:
        if not self.built:
            outside_of_the_graph(self.prepare, variables)

    def prepare(self, variables: Sequence[Any]) -> None:
        """What the first `build` does."""
        super().build(variables)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        super().apply([dense(gradient) for gradient in grads], trainable_variables)

    def clip_gradients(self, gradients, clip):
        replicas = number_of_replicas()
        if replicas == 1 or not any((self.clipnorm, self.clipvalue, self.global_clipnorm)):
            return clip(gradients)
        import tensorflow as tf

        # Keras will sum over the replicas again.
        gradients = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        return [gradient / replicas for gradient in clip(gradients)]

    def get_config(self) -> dict[str, Any]:
        classes = [cls for cls in type(self).__mro__ if issubclass(cls, WholeGradients)]
        values = {name: getattr(self, name) for cls in classes for name in vars(cls).get("saved_arguments", ())}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**super().get_config(), **values}


def dense(gradient: Any) -> Any:
    """TensorFlow's sparse gradient as a tensor; any other gradient as it is."""
    if hasattr(gradient, "indices") and hasattr(gradient, "dense_shape"):
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return gradient


def at_least_float32(dtype: Any) -> str:
    """The dtype to calculate in: float32 for shorter floats."""
    return keras.backend.result_type(keras.backend.standardize_dtype(dtype), "float32")


def number_of_replicas() -> int:
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


class Extension(WholeGradients):
    """Base of the parts that `extend` puts before a Keras optimizer class.

    A part overrides `prepare` and hooks of keras.optimizers.Optimizer, and hands on with super(): `apply` (a step),
    `update_step` (a variable in a step), `assign`, `assign_add` and `assign_sub` (a write in an update).
    Its own arguments are keyword-only. `trained.variables` are those that the optimizer was built with.
    """

    def prepare(self, variables: Sequence[Any]) -> None:
        # In a plain object, for an optimizer takes variables that are its attributes for its own.
        self.trained = SimpleNamespace(variables=tuple(variables))
        super().prepare(variables)


def refuse(optimizer: Any, *reasons: tuple[bool, str]) -> None:
    """Raises a TrainingError with the reasons whose condition holds."""
    found = [reason for condition, reason in reasons if condition]
    if found:
        raise TrainingError(f"{type(optimizer).__name__}: {' '.join(found)}")


def check_number(
    owner: Any, name: str, value: Any, least: float = 0, most: float = math.inf, kind: type = numbers.Real
) -> None:
    """Raises a TrainingError unless the argument `name` of `owner` is a finite number of the kind in these bounds."""
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most or value == math.inf:
        what = "a whole number" if kind is numbers.Integral else "a finite number"
        bounds = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        owner = owner if isinstance(owner, str) else type(owner).__name__
        raise TrainingError(f"{owner}: {name} must be {what} {bounds}, found {value!r}.")


def require_tensorflow(optimizer: Any, instead: str | None = None) -> None:
    backend = keras.backend.backend()
    hint = f" Use {instead}." if instead else ""
    refuse(optimizer, (backend != "tensorflow", f"it needs Keras' TensorFlow backend, found {backend!r}.{hint}"))
