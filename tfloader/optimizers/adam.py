"""Adam as PyTorch and bert4keras have it, and as Google trained BERT."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.keras_private import variable_index
from tfloader.optimizers.extension import WholeGradients


@keras.saving.register_keras_serializable("tfloader")
class Adam(WholeGradients, keras.optimizers.Optimizer):
    """Adam (Kingma and Ba, 2015, Algorithm 1): w -= learning_rate * m / (sqrt(v) + epsilon).

    Keras' Adam adds epsilon before v is corrected: at the first step its epsilon weighs 32 times as much.

    Args:
        learning_rate: number, schedule or callable.
        bias_correction: whether m and v are divided by 1 - beta^t; False as in Google's BERT.
        kwargs: those of every Keras optimizer (weight_decay, clipnorm ...).
    """

    saved_arguments = ("beta_1", "beta_2", "epsilon", "bias_correction")

    @public
    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        bias_correction: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)
        self.beta_1, self.beta_2, self.epsilon, self.bias_correction = beta_1, beta_2, epsilon, bias_correction

    def prepare(self, variables: Any) -> None:
        super().prepare(variables)
        self._first, self._second = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        dtype = variable.dtype
        index = variable_index(self, variable)
        m, v = self._first[index], self._second[index]
        gradient = ops.cast(gradient, dtype)
        self.assign_add(m, (gradient - m) * (1 - self.beta_1))
        self.assign_add(v, (ops.square(gradient) - v) * (1 - self.beta_2))
        rate, root = ops.cast(learning_rate, dtype), ops.sqrt(v)
        if self.bias_correction:
            # 1 - beta^t; the plain difference of two float32 numbers would be 1e-5 off at the first step.
            step = ops.cast(self.iterations + 1, dtype)
            rate = rate / -ops.expm1(step * math.log(self.beta_1))
            root = root / ops.sqrt(-ops.expm1(step * math.log(self.beta_2)))
        self.assign_sub(variable, m * rate / (root + self.epsilon))
