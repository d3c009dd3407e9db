"""AdaFactor (Shazeer and Stern, 2018), in memory that does not grow with the size of a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.border import public
from tfloader.keras_private import variable_index
from tfloader.optimizers.extension import WholeGradients, at_least_float32
from tfloader.selection import as_patterns, matches


@keras.saving.register_keras_serializable("tfloader")
class AdaFactor(WholeGradients, keras.optimizers.Optimizer):
    """AdaFactor with bert4keras' arguments, after Mesh TensorFlow's, which trained T5.

    Keras' Adafactor also keeps a full second moment, always scales by the parameter, and bounds a fixed learning rate
    by 1/sqrt(step).

    Args:
        learning_rate: number, schedule or callable; None: min(0.01, 1/sqrt(update)), and 0.05 of that without
            parameter scale.
        beta1: of the mean of the updates; 0: none is kept.
        beta2: of the mean of the squares; None: 1 - update^-0.8.
        epsilon1, epsilon2: added to the squared gradient; lower bound of the parameter scale.
        multiply_by_parameter_scale: whether the root mean square of a variable multiplies its learning rate.
        clipping_threshold: upper bound of the root mean square of an update, or None.
        min_dim_size_to_factor: variables whose second largest dimension is smaller keep all squares.
        exclude_from_parameter_scale: names of variables and layers (`tfloader.selection`) without it.
        kwargs: those of every Keras optimizer; weight_decay is multiplied by learning_rate alone.
    """

    saved_arguments = ("beta1", "beta2", "epsilon1", "epsilon2", "multiply_by_parameter_scale", "clipping_threshold")
    saved_arguments += ("min_dim_size_to_factor", "exclude_from_parameter_scale")

    @public
    def __init__(
        self,
        learning_rate: Any = 1e-3,
        beta1: float = 0.0,
        beta2: float | None = None,
        epsilon1: float = 1e-30,
        epsilon2: float = 1e-3,
        multiply_by_parameter_scale: bool = True,
        clipping_threshold: float | None = 1.0,
        min_dim_size_to_factor: int = 128,
        exclude_from_parameter_scale: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=self._own_rate if learning_rate is None else learning_rate, **kwargs)
        self._has_own_rate = learning_rate is None
        self.beta1, self.beta2, self.epsilon1, self.epsilon2 = beta1, beta2, epsilon1, epsilon2
        self.multiply_by_parameter_scale, self.clipping_threshold = multiply_by_parameter_scale, clipping_threshold
        self.min_dim_size_to_factor = min_dim_size_to_factor
        self.exclude_from_parameter_scale = as_patterns(exclude_from_parameter_scale)

    def _own_rate(self):
        rate = ops.minimum(0.01, ops.rsqrt(ops.cast(self.iterations + 1, "float32")))
        return rate if self.multiply_by_parameter_scale else 0.05 * rate

    def prepare(self, variables: Any) -> None:
        excluded = matches(self.exclude_from_parameter_scale, variables, "exclude_from_parameter_scale")
        super().prepare(variables)
        self._scaled = tuple(self.multiply_by_parameter_scale and not patterns for patterns in excluded)
        self._squares, self._means = [], []
        for index, variable in enumerate(variables):
            dtype = at_least_float32(variable.dtype)
            axes = self.factored_axes(variable.shape)
            shape = tuple(variable.shape)
            shapes = [(*shape[:axis], 1, *shape[axis + 1 :]) for axis in axes] or [shape]
            self._squares.append(
                [self.add_variable(shape, dtype=dtype, name=f"square_{index}_{n}") for n, shape in enumerate(shapes)]
            )
            if self.beta1:
                self._means.append(self.add_variable(variable.shape, dtype=dtype, name=f"mean_{index}"))

    def factored_axes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The two largest axes (the later ones of equal size), or none if the smaller is too small."""
        if len(shape) < 2:
            return ()
        smaller, larger = np.argsort(shape, kind="stable")[-2:]
        return (int(larger), int(smaller)) if shape[smaller] >= self.min_dim_size_to_factor else ()

    def scales_by_weights(self, variable: Any) -> bool:
        return self.built and self._scaled[variable_index(self, variable)]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index, dtype = variable_index(self, variable), at_least_float32(variable.dtype)
        gradient, rate = ops.cast(gradient, dtype), ops.cast(learning_rate, dtype)
        beta2 = self.beta2 if self.beta2 is not None else 1 - ops.cast(self.iterations + 1, dtype) ** -0.8
        square, axes = ops.square(gradient) + self.epsilon1, self.factored_axes(variable.shape)
        for axis, kept in zip(axes or (None,), self._squares[index], strict=True):
            new = square if axis is None else ops.mean(square, axis=axis, keepdims=True)
            self.assign(kept, beta2 * kept + (1 - beta2) * new)
        if axes:
            one, other = self._squares[index]
            change = gradient * ops.rsqrt(one / ops.mean(one, axis=axes[1], keepdims=True)) * ops.rsqrt(other)
        else:
            change = gradient * ops.rsqrt(self._squares[index][0])
        if self.clipping_threshold is not None:
            change = change / ops.maximum(1.0, _rms(change) / self.clipping_threshold)
        if self._scaled[index]:
            rate = rate * ops.maximum(self.epsilon2, _rms(ops.cast(variable, dtype)))
        change = rate * change
        if self.beta1:
            mean = self._means[index]
            self.assign(mean, self.beta1 * mean + (1 - self.beta1) * change)
            change = ops.convert_to_tensor(mean)
        self.assign_sub(variable, ops.cast(change, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "learning_rate": None} if self._has_own_rate else config


def _rms(tensor):
    return ops.sqrt(ops.mean(ops.square(tensor)))
