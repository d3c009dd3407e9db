"""Normalisations beyond Keras' own, above all those whose scale and offset depend on a condition vector.

Conditional layer normalisation: Su, kexue.fm/archives/7124 (2020); the added terms start at zero, so a pretrained
model starts unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.layers.base import arguments


@keras.saving.register_keras_serializable("tfloader")
class RMSNormalization(keras.layers.RMSNormalization):
    """Keras' RMSNormalization, which drops masks, made to pass them on."""

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return mask


@keras.saving.register_keras_serializable("tfloader")
class PlainRMSNormalization(keras.layers.Layer):
    """RMS normalisation without weights, as in RoFormerV2: x / sqrt(mean(x^2) + epsilon) over the last axis."""

    def __init__(self, epsilon: float = 1e-7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon
        self.supports_masking = True

    def call(self, x: Any) -> Any:
        x32 = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        return ops.cast(x32 * ops.rsqrt(ops.mean(ops.square(x32), axis=-1, keepdims=True) + self.epsilon), x.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


class Conditional(keras.layers.Layer if TYPE_CHECKING else object):
    """What both share: the dense layers that turn the condition into changes of scale and offset.

    Args:
        hidden_units: width of a dense layer between the condition and the changes, or None for none.
        hidden_activation: its activation.
    """

    terms: tuple[str, ...] = ()

    @public
    def __init__(
        self, *args: Any, hidden_units: int | None = None, hidden_activation: Any = "linear", **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.hidden_units = hidden_units
        self.hidden_activation = hidden_activation
        self.supports_masking = True

    def build(self, x_shape: Any, condition_shape: Any) -> None:
        super().build(x_shape)
        if self.hidden_units is not None:
            self.hidden_dense = keras.layers.Dense(
                self.hidden_units, self.hidden_activation, use_bias=False, dtype=self.dtype_policy, name="hidden_dense"
            )
            self.hidden_dense.build(condition_shape)
            condition_shape = (*condition_shape[:-1], self.hidden_units)
        for term in self.terms:
            dense = keras.layers.Dense(
                x_shape[-1], use_bias=False, kernel_initializer="zeros", dtype=self.dtype_policy, name=f"{term}_dense"
            )
            setattr(self, f"{term}_dense", dense)
            dense.build(condition_shape)

    @property
    def added_weights(self) -> Any:
        """The variables beside those of the plain norm: a new model's condition, which no checkpoint holds."""
        layers = [getattr(self, f"{term}_dense") for term in self.terms]
        layers += [] if self.hidden_units is None else [self.hidden_dense]
        return [variable for layer in layers for variable in layer.weights]

    def changes(self, x: Any, condition: Any) -> Any:
        """The changes of each term in float32; a condition of rank 2 holds for every position."""
        if self.hidden_units is not None:
            condition = self.hidden_dense(condition)
        while len(condition.shape) < len(x.shape):
            condition = ops.expand_dims(condition, 1)
        return [ops.cast(getattr(self, f"{term}_dense")(condition), "float32") for term in self.terms]

    def compute_output_shape(self, x_shape: Any, condition_shape: Any = None) -> Any:
        return x_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **arguments(self, "hidden_units", "hidden_activation")}


@keras.saving.register_keras_serializable("tfloader")
class ConditionalLayerNormalization(Conditional, keras.layers.LayerNormalization):
    """Layer normalisation with gamma + A c and beta + B c: call(x [batch, ..., size], condition [batch, c])."""

    terms = ("beta", "gamma")

    def call(self, x: Any, condition: Any) -> Any:
        beta, gamma = self.changes(x, condition)
        x32 = ops.cast(x, "float32")
        mean, variance = ops.moments(x32, axes=-1, keepdims=True)
        x32 = (x32 - mean) * ops.rsqrt(variance + self.epsilon)
        gamma, beta = ops.cast(self.gamma, "float32") + gamma, ops.cast(self.beta, "float32") + beta
        return ops.cast(x32 * gamma + beta, self.compute_dtype)


@keras.saving.register_keras_serializable("tfloader")
class ConditionalRMSNormalization(Conditional, RMSNormalization):
    """RMS normalisation with scale + A c: call(x [batch, ..., size], condition [batch, c])."""

    terms = ("scale",)

    def call(self, x: Any, condition: Any) -> Any:
        (scale,) = self.changes(x, condition)
        x32 = ops.cast(x, "float32")
        x32 = x32 * ops.rsqrt(ops.mean(ops.square(x32), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(x32 * (ops.cast(self.scale, "float32") + scale), self.compute_dtype)
