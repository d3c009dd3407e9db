"""Softmax over cosines with a margin, for well separated classes: sentence matching, faces, many small classes.

AM-softmax: Wang et al., 2018 (arXiv:1801.05599); ArcFace: Deng et al., 2018 (arXiv:1801.07698).
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.losses.common import FunctionLoss, as_float32, checked_labels, class_labels
from tfloader.optimizers.building import build_optimizer_around


@keras.saving.register_keras_serializable("tfloader")
class CosineDense(keras.layers.Layer):
    """Cosines between vectors and `units` learned directions: [..., size] -> [..., units], float32 in any precision."""

    @public
    def __init__(self, units: int, kernel_initializer: Any = "glorot_uniform", **kwargs: Any) -> None:
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            name="kernel", shape=(input_shape[-1], self.units), initializer=self.kernel_initializer
        )

    def call(self, x: Any) -> Any:
        build_optimizer_around(self)
        return ops.matmul(ops.normalize(x, axis=-1), ops.normalize(self.kernel, axis=0))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return {**super().get_config(), "units": self.units, "kernel_initializer": initializer}


@keras.saving.register_keras_serializable("tfloader")
def margin_softmax(
    y_true: Any, y_pred: Any, scale: float = 30.0, margin: float = 0.0, angular_margin: float = 0.0
) -> Any:
    """Cross-entropy of softmax(scale * cosines), with the cosine of the right class made smaller; of each row.

    The right class' cosine c = cos(t) becomes cos(t + angular_margin) - margin; where t + angular_margin is beyond pi
    it becomes c - angular_margin * sin(angular_margin) - margin, as in ArcFace's own code. Without margins it is the
    normalised softmax.

    Args:
        y_true: integer labels [...] or [..., 1].
        y_pred: cosines [..., classes], such as CosineDense gives.
        scale: what cosines are multiplied by.
    """
    cosines = as_float32(y_pred)
    labels, wrong = checked_labels(class_labels(y_true, cosines), ops.shape(cosines)[-1])
    labels = labels[..., None]
    right = ops.take_along_axis(cosines, labels, axis=-1)
    if angular_margin:
        sine = ops.sqrt(ops.maximum(1 - right * right, 1e-7))  # whose gradient is infinite where the cosine is 1 or -1
        of_the_sum = right * math.cos(angular_margin) - sine * math.sin(angular_margin)
        beyond = right - angular_margin * math.sin(angular_margin)
        right = ops.where(right > -math.cos(angular_margin), of_the_sum, beyond)
    right = right - margin
    is_right = ops.equal(labels, ops.arange(ops.shape(cosines)[-1]))
    logits = scale * ops.where(is_right, right, cosines)
    return ops.add(ops.logsumexp(logits, axis=-1) - scale * right[..., 0], wrong)


@keras.saving.register_keras_serializable("tfloader")
class NormalizedSoftmax(FunctionLoss):
    """Cross-entropy of softmax(scale * cosines); see `margin_softmax`."""

    @public
    def __init__(self, scale: float = 30.0, **kwargs: Any) -> None:
        super().__init__(margin_softmax, {"scale": scale}, **kwargs)


@keras.saving.register_keras_serializable("tfloader")
class AMSoftmax(FunctionLoss):
    """The same with the right class' cosine c made c - margin."""

    @public
    def __init__(self, scale: float = 30.0, margin: float = 0.35, **kwargs: Any) -> None:
        super().__init__(margin_softmax, {"scale": scale, "margin": margin}, **kwargs)


@keras.saving.register_keras_serializable("tfloader")
class ArcFace(FunctionLoss):
    """The same with the right class' angle t made t + angular_margin (radians)."""

    @public
    def __init__(self, scale: float = 64.0, angular_margin: float = 0.5, **kwargs: Any) -> None:
        super().__init__(margin_softmax, {"scale": scale, "angular_margin": angular_margin}, **kwargs)
