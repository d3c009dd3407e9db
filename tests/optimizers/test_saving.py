"""Optimizers are read back with the model, and training goes on as if nothing had happened."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.optimizers import small
from tfloader import optimizers
from tfloader.errors import TrainingError
from tfloader.optimizers.extended import EXTENSIONS, Extended

ARGUMENTS = {
    "grad_accum_steps": 3,
    "lr_schedule": {2: 1, 6: 0.5},
    "ema_momentum": 0.75,
    "steps_per_slow_update": 2,
    "slow_step_size": 0.25,
    "paramwise_lr_schedule": {"^table/": 0.5, "kernel": 2},
    "weight_decay_rate": 0.1,
    "exclude_from_weight_decay": ["bias", "norm"],
    "exclude_from_layer_adaptation": ["^table/"],
    "include_in_lazy_optimization": ["^table/"],
    "global_clipnorm": 1.0,
}
MADE = {
    "all parts": lambda: optimizers.extend(keras.optimizers.Adam, *EXTENSIONS)(0.05, **ARGUMENTS),
    "no part": lambda: optimizers.extend(keras.optimizers.Lion)(0.05),
    "named": lambda: optimizers.extend_with_lookahead(optimizers.AdaFactor, name="Mine")(None, beta1=0.5),
    "loss scaling": lambda: keras.optimizers.LossScaleOptimizer(
        optimizers.extend_with_gradient_accumulation(optimizers.Adam)(0.05)
    ),
    "schedule": lambda: optimizers.extend_with_weight_decay(keras.optimizers.SGD)(
        optimizers.PiecewiseLinear(0.05, {10: 1}), weight_decay_rate=0.5
    ),
    "Adam": lambda: optimizers.Adam(0.05, epsilon=1e-4, bias_correction=False),
    "AdaFactor": lambda: optimizers.AdaFactor(0.05, min_dim_size_to_factor=1, clipping_threshold=None),
}


@pytest.fixture
def fresh_process():
    """What Keras knows of tfloader's optimizers after `import tfloader.optimizers`, and not of classes made since."""
    yield
    keras.saving.get_custom_objects()["tfloader>ExtendedOptimizer"] = Extended


def batches(model, numbers):
    x, y = small.data()
    for number in numbers:
        rows = slice(2 * number, 2 * number + 2)
        model.train_on_batch(x[rows], y[rows])


@pytest.mark.parametrize("name", MADE)
def test_training_goes_on_from_a_saved_model_bit_by_bit(name, tmp_path, fresh_process):
    model = small.model()
    model.compile(MADE[name](), "mse", run_eagerly=True, jit_compile=False)
    batches(model, range(4))  # with all parts: in the middle of the second group
    model.save(tmp_path / "model.keras")
    keras.saving.get_custom_objects()["tfloader>ExtendedOptimizer"] = Extended
    read = keras.saving.load_model(tmp_path / "model.keras")
    assert type(read.optimizer).__mro__[1:] == type(model.optimizer).__mro__[1:]
    config = model.optimizer.get_config()
    assert read.optimizer.get_config() == config
    if name == "all parts":
        assert {argument: config[argument] for argument in ARGUMENTS if argument != "lr_schedule"} == {
            argument: value for argument, value in ARGUMENTS.items() if argument != "lr_schedule"
        }
    read.run_eagerly = True
    for one in (model, read):
        batches(one, range(4, 8))
    for one, two in zip(
        (*model.weights, *model.optimizer.variables), (*read.weights, *read.optimizer.variables), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_an_extended_class_of_a_user_is_read_if_it_is_registered_and_named_if_it_is_not():
    class Mine(keras.optimizers.SGD):
        pass

    config = keras.saving.serialize_keras_object(optimizers.extend_with_lookahead(Mine)(0.5))
    with pytest.raises(TrainingError, match="'Mine' is not known"):
        keras.saving.deserialize_keras_object(config)
    read = keras.saving.deserialize_keras_object(config, custom_objects={"Mine": Mine})
    assert isinstance(read, Mine) and isinstance(read, optimizers.Lookahead)


@keras.saving.register_keras_serializable("tests")
class Subclass(optimizers.extend_with_lookahead(keras.optimizers.SGD)):
    """What a user makes of an extended class."""


def test_a_registered_subclass_of_an_extended_class_is_read_as_itself():
    read = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(Subclass(0.5, slow_step_size=0.25))
    )
    assert type(read) is Subclass and read.slow_step_size == 0.25
