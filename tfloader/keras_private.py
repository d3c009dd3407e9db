"""All that tfloader uses of Keras without Keras documenting it, each with the reason why nothing public will do.

tests/test_keras_private.py fails when Keras (3.13 to 3.15) changes one of these, and when such a use stands elsewhere.
"""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the hook stands before a Keras optimizer class, whose methods it calls with super()
    import keras

    Optimizer = keras.optimizers.Optimizer
else:
    Optimizer = object


def variable_index(optimizer: Any, variable: Any) -> int:
    """The place of a variable in the list that its optimizer was built with.

    Keras calls `update_step` with a tf.Variable, under tf.distribute with one replica's component of it. Only the
    optimizer knows which of its variables that is; all optimizers of Keras ask it in this way.
    """
    return optimizer._get_variable_index(variable)


class ClipHook(Optimizer):
    """Before an optimizer class: `clip_gradients` stands around Keras' own clipping.

    That comes after the loss scale is divided out and after gradients are accumulated, but before the update, and no
    public method is called between these.
    """

    def clip_gradients(self, gradients: Sequence[Any], clip: Callable[[Sequence[Any]], Sequence[Any]]) -> Sequence[Any]:
        """The clipped gradients; `clip` is Keras' own clipping."""
        return clip(gradients)

    def _clip_gradients(self, grads: Sequence[Any]) -> Sequence[Any]:
        return self.clip_gradients(grads, super()._clip_gradients)


def training_model(layer: Any) -> Any:
    """Within the call of a layer: the compiled model whose training step calls it, or None.

    A layer is told whether it trains, but nothing public tells it in which model. On TensorFlow Keras builds an
    optimizer within the first step, unless somebody who knows both builds it before.
    """
    context = layer._get_call_context()
    model = context.entry_layer
    if model is layer:  # nothing is around it; and where its `call` was called directly, the context is a new one
        layer._maybe_reset_call_context()
    return model if getattr(context, "training", None) and getattr(model, "compiled", False) else None


def is_asked_for_shapes() -> bool:
    """Within `__getitem__` of a PyDataset: whether Keras reads the batch for its shapes only, and will not train on it.

    Keras (3.15) takes a size in which the first two batches agree for fixed, and has no argument to say otherwise. So
    this looks for the method that reads these two among the callers. Should it get another name, nothing worse happens
    than what Keras does by itself.
    """
    callers = itertools.islice(traceback.walk_stack(None), 8)
    return any(frame.f_code.co_name == "get_tf_dataset" for frame, _ in callers)


def training_arguments() -> dict[str, Any]:
    """Within what is traced or run for a `fit` or `train_on_batch`: its arguments, with the model as `self`; or {}.

    A loss is told neither the model, nor that Keras made its sample weights of `class_weight` and of labels. Hence a
    look at the callers.
    """
    trains, others = ("fit", "train_on_batch"), ("evaluate", "predict", "test_on_batch", "predict_on_batch")
    frames = (frame for frame, _ in traceback.walk_stack(None) if frame.f_code.co_name in trains + others)
    frame = next(frames, None)
    return frame.f_locals if frame is not None and frame.f_code.co_name in trains else {}


def mask_lost_at(x: Any) -> str | None:
    """The name of the operation after which a Keras tensor has no mask any more; None: it has one, or never had.

    Keras warns of layers that do not hand masks on, but not of operations (x * 2, x[:, 1:]). What a tensor was made of
    and its mask stand in attributes of it.
    """
    while getattr(x, "_keras_mask", None) is None:
        operation, index, _ = x._keras_history
        inputs = operation._inbound_nodes[index].input_tensors
        if not inputs:
            return None
        if any(getattr(item, "_keras_mask", None) is not None for item in inputs):
            return operation.name
        x = inputs[0]
    return None
