"""Second copies of the weights: their moving average, and Lookahead's slow weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.errors import TrainingError
from tfloader.optimizers.building import innermost
from tfloader.optimizers.extension import Extension, at_least_float32, check_number, refuse, require_tensorflow


class ExponentialMovingAverage(Extension):
    """Averages the weights after each update: `with optimizer.ema_weights(): model.evaluate(...)` uses the average.

    The weights, which come back bit by bit, count after update i of t with momentum^(t - i), as in bert4keras with its
    bias correction. Keras' own use_ema (3.15) averages at every batch of gradient accumulation, and its SwapEMAWeights
    rounds the weights.

    Args:
        ema_momentum: factor of the earlier average in each update.
    """

    @public
    def __init__(self, *args: Any, ema_momentum: float = 0.999, **kwargs: Any) -> None:
        super().__init__(*args, ema_momentum=ema_momentum, **kwargs)
        refuse(
            self,
            (not 0 < ema_momentum < 1, f"ema_momentum is {ema_momentum!r}; expected a number between 0 and 1."),
            (self.use_ema, "it averages by itself; leave out use_ema."),
            (
                bool(self.gradient_accumulation_steps),
                "gradient_accumulation_steps would average at each small step; use extend_with_gradient_accumulation.",
            ),
        )
        self._weights_aside = None

    def prepare(self, variables: Any) -> None:
        super().prepare(variables)
        self._averages = [
            self.add_variable(variable.shape, dtype=at_least_float32(variable.dtype), name=f"average_{index}")
            for index, variable in enumerate(variables)
        ]

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        super().apply(grads, trainable_variables)
        updates = ops.cast(self.iterations, "float32")
        share = (1 - self.ema_momentum) / -ops.expm1(updates * math.log(self.ema_momentum))
        for average, variable in zip(self._averages, self.trained.variables, strict=True):
            change = ops.cast(variable, average.dtype) - average
            average.assign(average + change * ops.cast(share, average.dtype))

    @property
    def has_average(self) -> bool:
        return self.built and ops.convert_to_numpy(self.iterations) > 0

    @property
    def average_is_in(self) -> bool:
        return self._weights_aside is not None

    def apply_ema_weights(self) -> None:
        """Puts the average into the model, and keeps the weights for `reset_old_weights`.

        A TrainingError before the first update, or twice in a row.
        """
        refuse(
            self,
            (not self.has_average, "there is no average before the first update."),
            (self.average_is_in, "the model has the average already; call reset_old_weights first."),
        )
        self._weights_aside = tuple(ops.convert_to_numpy(variable) for variable in self.trained.variables)
        for variable, average in zip(self.trained.variables, self._averages, strict=True):
            variable.assign(ops.cast(average, variable.dtype))

    def reset_old_weights(self) -> None:
        """Puts the weights back that `apply_ema_weights` kept."""
        refuse(self, (not self.average_is_in, "there are no weights to put back; call apply_ema_weights first."))
        for variable, weights in zip(self.trained.variables, self._weights_aside or (), strict=True):
            variable.assign(weights)
        self._weights_aside = None

    @contextmanager
    def ema_weights(self) -> Iterator[None]:
        """The model has the average for as long as the context lasts."""
        self.apply_ema_weights()
        try:
            yield
        finally:
            self.reset_old_weights()


class EvaluateAverage(keras.callbacks.Callback):
    """Evaluates and validates with the average of an `ExponentialMovingAverage`, and trains on with the weights.

    In `fit` the average stays in the model from the end of an epoch to the beginning of the next: callbacks that come
    later in the list measure and keep it. Let this one be the first. (`TrainingBackup` keeps the weights themselves;
    Keras' BackupAndRestore would not.)
    """

    _fits = False

    def on_train_begin(self, logs: Any = None) -> None:
        self._fits = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._put(average=True)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._put(average=True)

    def on_test_end(self, logs: Any = None) -> None:
        self._put(average=self._fits)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._put(average=False)

    def on_train_end(self, logs: Any = None) -> None:
        self._fits = False
        self._put(average=False)

    def _put(self, average: bool) -> None:
        """Puts the average, or the weights themselves, into the model, if it has the other."""
        optimizer = innermost(self.model.optimizer)
        if not isinstance(optimizer, ExponentialMovingAverage):
            raise TrainingError(
                f"EvaluateAverage needs an optimizer of a class made by extend_with_exponential_moving_average, found "
                f"{type(optimizer).__name__}."
            )
        if average and optimizer.has_average and not optimizer.average_is_in:
            optimizer.apply_ema_weights()
        elif not average and optimizer.average_is_in:
            optimizer.reset_old_weights()


@contextmanager
def own_weights(optimizer: Any) -> Iterator[None]:
    """The model has the weights themselves for as long as the context lasts, also between epochs."""
    optimizer = innermost(optimizer)
    if not getattr(optimizer, "average_is_in", False):
        yield
        return
    optimizer.reset_old_weights()
    try:
        yield
    finally:
        optimizer.apply_ema_weights()


class Lookahead(Extension):
    """Every k updates the slow weights move a fraction of the way to the fast ones, which restart from there.

    Zhang et al., 2019. The slow weights start as the weights before the first update; the optimizer's moments are kept.

    Args:
        steps_per_slow_update, slow_step_size: k, in updates; that fraction.
    """

    saved_arguments = ("steps_per_slow_update", "slow_step_size")

    @public
    def __init__(self, *args: Any, steps_per_slow_update: int = 5, slow_step_size: float = 0.5, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        require_tensorflow(self)
        check_number(self, "steps_per_slow_update", steps_per_slow_update, 1, kind=Integral)
        refuse(
            self,
            (not 0 < slow_step_size <= 1, f"slow_step_size is {slow_step_size!r}; expected a number above 0, up to 1."),
            (self.use_ema, "use_ema would average the weights before they are set back."),
        )
        self.steps_per_slow_update, self.slow_step_size = steps_per_slow_update, slow_step_size

    def prepare(self, variables: Any) -> None:
        super().prepare(variables)
        self._slow = self.add_optimizer_variables(variables, "slow")

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        if not self.built:
            self.build(list(trainable_variables))
        self._where(self.iterations == 0, self._start)
        super().apply(grads, trainable_variables)
        self._where(self.iterations % self.steps_per_slow_update == 0, self._synchronize)

    def _where(self, condition, step):
        """Does `step` with each variable on each replica if the condition holds: one branch for all of them."""
        import tensorflow as tf

        def once(strategy):
            def everywhere():
                for variable, slow in zip(self.trained.variables, self._slow, strict=True):
                    native = variable.value if isinstance(variable, keras.Variable) else variable
                    strategy.extended.update(native, step, args=(slow.value,), group=False)

            tf.cond(condition, everywhere, lambda: None)

        tf.distribute.get_replica_context().merge_call(once)

    def _start(self, variable, slow):
        slow.assign(variable)

    def _synchronize(self, variable, slow):
        slow.assign_add((variable - slow) * self.slow_step_size)
        variable.assign(slow)
