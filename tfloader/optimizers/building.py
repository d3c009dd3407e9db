"""Optimizers are built before their first step, outside of its graph.

Keras builds them inside: TensorFlow then traces the step twice, and what ScheduleFreeAdamW copies from the weights when
it is built is lost, so that its first step erases them. So whatever of the package is in a training builds it: layers,
losses and callbacks, each where it learns of the model, and the package's optimizers themselves. A training without any
of these is Keras' own. (Metrics given by name Keras builds inside, too: these cost the second tracing.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras

from tfloader.errors import TrainingError
from tfloader.keras_private import training_arguments, training_model
from tfloader.selection import all_layers, path

# Their step depends on the size of the weights.
SCALED_BY_WEIGHTS = (keras.optimizers.Adafactor, keras.optimizers.Lamb, keras.optimizers.Ftrl)


def outside_of_the_graph(build: Callable[[Any], None], variables: Any) -> None:
    """build(variables), in a thread of its own where a tf.function is being traced, for no other knows of that.

    In tf.init_scope, too, variables are made at once, but the function still counts them and is traced again. Under a
    strategy Keras builds before the first step, and the strategy sees to where variables are made.

    Raises:
        TrainingError: it reads weights that have no values before the first step.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not (tf.executing_eagerly() or tf.distribute.has_strategy()):
            with ThreadPoolExecutor(1) as thread:
                try:
                    return thread.submit(build, variables).result()
                except ValueError as reason:
                    raise TrainingError(
                        "The optimizer copies the weights when it is built, and some have no values before the first "
                        "step. Call the model on a batch before you compile it."
                    ) from reason
    return build(variables)


def is_built(model: keras.Model) -> bool:
    """Whether all variables of a model exist."""
    return all(layer.built for layer in (model, *all_layers(model)))


def build_optimizer(model: keras.Model) -> None:
    """Builds the optimizer of a compiled model that is about to make its first step, if all its variables exist."""
    if model.optimizer is not None and not model.optimizer.built and is_built(model):
        outside_of_the_graph(model.optimizer.build, model.trainable_variables)


def build_optimizer_around(layer: keras.layers.Layer) -> None:
    """Within the call of a layer: `build_optimizer` of the model whose training step is being traced, if one is.

    Raises:
        TrainingError: the optimizer would erase the weights.
    """
    model = training_model(layer)
    if model is not None and is_traced():
        if isinstance(innermost(model.optimizer), keras.optimizers.Ftrl):
            raise TrainingError("Ftrl starts from weights of zero: its first step erases those that the model has.")
        build_optimizer(model)


def build_optimizer_around_loss() -> None:
    """Within the call of a loss: the same, for models that have no layer of the package."""
    model = training_arguments().get("self")
    if getattr(model, "compiled", False) and is_traced():
        build_optimizer(model)


def is_traced() -> bool:
    """Whether a tf.function is being traced."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def refuse_steps_by_weights(layer: keras.layers.Layer, weights: Iterable[Any], what: str) -> None:
    """Within the call of a layer: a TrainingError if the optimizer scales the steps of its weights by their size."""
    optimizer = innermost(getattr(training_model(layer), "optimizer", None))
    own = getattr(optimizer, "scales_by_weights", lambda variable: False)
    wrong = [path(weight) for weight in weights if isinstance(optimizer, SCALED_BY_WEIGHTS) or own(weight)]
    if wrong:
        raise TrainingError(
            f"{what} has not the effect that it promises under {type(optimizer).__name__}, which scales the step of "
            f"{', '.join(wrong)} by the size of the weights. Leave it at 1 and give the optimizer a multiplier "
            "(paramwise_lr_schedule), or exclude the layer from the scaling."
        )


def innermost(optimizer: Any) -> Any:
    """The optimizer that updates: the one within a LossScaleOptimizer."""
    return getattr(optimizer, "inner_optimizer", optimizer)
