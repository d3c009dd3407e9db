"""Moving averages put in and taken out again; Lookahead on weights that were loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfloader
from tests.optimizers import small
from tests.optimizers.reference import variables
from tfloader import optimizers
from tfloader.errors import TrainingError

Averaging = optimizers.extend_with_exponential_moving_average(keras.optimizers.Adam)
Looking = optimizers.extend_with_lookahead(keras.optimizers.SGD)


def apply(optimizer, variable, times=1):
    for _ in range(times):
        optimizer.apply([keras.ops.ones(variable.shape, variable.dtype)], [variable])


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_the_weights_come_back_bit_by_bit_and_the_average_is_kept_in_float32(dtype):
    values = np.random.default_rng(0).normal(size=(50, 3))
    (variable,) = variables({"a/kernel": values}, dtype)
    optimizer = Averaging(2**-9, ema_momentum=0.5)
    seen = []
    for _ in range(3):
        apply(optimizer, variable)
        seen.append(keras.ops.convert_to_numpy(variable).astype("float64"))
    before = keras.ops.convert_to_numpy(variable).tobytes()
    average = (seen[0] + 2 * seen[1] + 4 * seen[2]) / 7
    np.testing.assert_allclose(optimizer._averages[0], average, rtol=1e-6)
    with optimizer.ema_weights():
        found = keras.ops.convert_to_numpy(variable).astype("float64")
        np.testing.assert_allclose(found, average, rtol={"bfloat16": 4e-3, "float16": 5e-4}.get(dtype, 1e-6))
    assert keras.ops.convert_to_numpy(variable).tobytes() == before


def test_putting_in_and_taking_out_at_the_wrong_time_is_refused():
    optimizer = Averaging()
    (variable,) = variables({"a/kernel": np.ones(2)}, "float32")
    with pytest.raises(TrainingError, match="before the first update"):
        optimizer.apply_ema_weights()
    apply(optimizer, variable)
    with pytest.raises(TrainingError, match="apply_ema_weights first"):
        optimizer.reset_old_weights()
    optimizer.apply_ema_weights()
    with pytest.raises(TrainingError, match="reset_old_weights first"):
        optimizer.apply_ema_weights()
    optimizer.reset_old_weights()


def test_the_weights_come_back_after_an_error():
    optimizer, (variable,) = Averaging(0.5), variables({"a/kernel": np.ones(2)}, "float32")
    apply(optimizer, variable, 3)
    before = variable.numpy()
    with pytest.raises(RuntimeError), optimizer.ema_weights():
        raise RuntimeError
    np.testing.assert_array_equal(variable, before)


class Losses(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.found = []

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(logs["val_loss"])


@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "loss scaling"])
def test_the_callback_validates_with_the_average_and_trains_on_with_the_weights(scaled):
    def fitted(*callbacks):
        optimizer = Averaging(0.1, ema_momentum=0.9)
        model = small.model()
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse", run_eagerly=True)
        losses = Losses()
        options = {"validation_data": small.data(), "shuffle": False, "verbose": 0, "batch_size": 8}
        model.fit(*small.data(), epochs=2, callbacks=[*callbacks, losses], **options)
        return model, optimizer, losses.found

    plain, _, losses = fitted()
    model, optimizer, averaged = fitted(optimizers.EvaluateAverage())
    assert small.difference(plain, model) == 0
    with optimizer.ema_weights():
        expected = model.evaluate(*small.data(), verbose=0)
    assert averaged[-1] == pytest.approx(expected, rel=1e-6) and averaged[-1] != pytest.approx(losses[-1], rel=1e-3)


class Measured(keras.callbacks.Callback):
    """A metric that is computed at the end of an epoch, such as an F1."""

    def on_epoch_end(self, epoch, logs=None):
        logs["measured"] = self.model.evaluate(*small.data(), verbose=0)


@pytest.mark.parametrize("validating", [True, False])
def test_the_best_weights_are_those_that_were_measured_and_a_backup_has_the_weights_themselves(validating, tmp_path):
    def fitted(folder, *callbacks):
        model, backup = small.model(), tfloader.TrainingBackup(tmp_path / folder)
        model.compile(Averaging(0.1, ema_momentum=0.9), "mse", run_eagerly=True)
        best = tfloader.BestWeights(tmp_path / folder / "best.safetensors", "measured")
        options = {"validation_data": small.data() if validating else None, "shuffle": False, "verbose": 0}
        model.fit(*small.data(), epochs=3, callbacks=[*callbacks, Measured(), best, backup], **options)
        best.restore(other := small.model())
        other.compile(loss="mse", run_eagerly=True)
        assert other.evaluate(*small.data(), verbose=0) == pytest.approx(best.best, rel=1e-6)
        return model, best.best, backup

    plain, one, _ = fitted("plain")
    averaged, two, backup = fitted("averaged", optimizers.EvaluateAverage())
    assert small.difference(plain, averaged) == 0 and one != two
    resumed = small.model()
    resumed.compile(Averaging(0.1, ema_momentum=0.9), "mse")
    assert backup.restore(resumed) == 3 and small.difference(plain, resumed) == 0


def test_the_callback_refuses_an_optimizer_without_averages():
    model = small.fit(keras.optimizers.SGD(0.1))
    with pytest.raises(TrainingError, match="extend_with_exponential_moving_average"):
        model.evaluate(*small.data(), verbose=0, callbacks=[optimizers.EvaluateAverage()])


def test_lookahead_starts_from_the_weights_that_were_loaded_even_after_it_was_built():
    """bert4keras started from zero, and halved pretrained weights at the first update."""
    (variable,) = variables({"a/kernel": np.zeros(3)}, "float32")
    optimizer = Looking(0.25, steps_per_slow_update=2)
    optimizer.build([variable])
    variable.assign([4.0, 8.0, -16.0])
    apply(optimizer, variable)
    np.testing.assert_array_equal(variable, [3.75, 7.75, -16.25])
    apply(optimizer, variable)
    np.testing.assert_array_equal(variable, [3.75, 7.75, -16.25])  # half of the way from 4 to 3.5
    apply(optimizer, variable, 2)
    np.testing.assert_array_equal(variable, [3.5, 7.5, -16.5])
