"""Every trajectory that PyTorch, Hugging Face and NumPy recorded in float64 (fixtures/num_optimizers)."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.conftest import FIXTURES
from tfloader import optimizers

INPUTS = np.load(FIXTURES / "num_optimizers" / "inputs.npz")
OUTPUTS = np.load(FIXTURES / "num_optimizers" / "outputs.npz")
NAMES = ("kernel", "bias", "tensor3")
# The learning rate is a float32 number, the trajectories' 0.01 a float64 one.
TOLERANCE = 2e-8

Adam = optimizers.Adam
AdamW = optimizers.extend_with_weight_decay(Adam)
Lamb = optimizers.extend_with_layer_adaptation(AdamW)


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    """T5's: min(1e-6 t, 1 / sqrt(t))."""

    def __call__(self, step):
        step = keras.ops.cast(step + 1, "float32")
        return keras.ops.minimum(1e-6 * step, keras.ops.rsqrt(step))


def adafactor(learning_rate, **arguments):
    """Hugging Face factors everything that has two axes."""
    return optimizers.AdaFactor(learning_rate, min_dim_size_to_factor=1, **arguments)


OPTIMIZERS = {
    "adam": lambda: Adam(0.01),
    "adamw": lambda: AdamW(0.01, weight_decay_rate=0.05, exclude_from_weight_decay=()),
    "bert_adamw_nobiascorr": lambda: AdamW(0.01, bias_correction=False, exclude_from_weight_decay=()),
    "lamb": lambda: Lamb(0.01, exclude_from_weight_decay=()),
    "lamb_nobiascorr": lambda: Lamb(0.01, bias_correction=False, exclude_from_weight_decay=()),
    "lamb_nowd": lambda: optimizers.extend_with_layer_adaptation(Adam)(0.01),
    "lookahead_adam_k2_a0.5": lambda: optimizers.extend_with_lookahead(Adam)(0.01, steps_per_slow_update=2),
    "adam_accum2_mean": lambda: optimizers.extend_with_gradient_accumulation(Adam)(0.01, grad_accum_steps=2),
    "adafactor_fixedlr": lambda: adafactor(0.01, multiply_by_parameter_scale=False),
    "adafactor_fixedlr_scaled": lambda: adafactor(0.01),
    "adafactor_relative": lambda: adafactor(None),
    "adafactor_relative_warmup": lambda: adafactor(Warmup()),
    "adafactor_beta1": lambda: adafactor(0.01, beta1=0.9, multiply_by_parameter_scale=False),
    "adafactor_wd": lambda: adafactor(0.01, weight_decay=0.05, multiply_by_parameter_scale=False),
}


def trajectory(optimizer) -> dict[str, np.ndarray]:
    variables = [keras.Variable(INPUTS[f"param0__{name}"], dtype="float64", name=name) for name in NAMES]
    history = {name: [] for name in NAMES}
    for step in range(5):
        gradients = [keras.ops.convert_to_tensor(INPUTS[f"grad__{name}"][step].astype("float64")) for name in NAMES]
        optimizer.apply(gradients, variables)
        for name, variable in zip(NAMES, variables, strict=True):
            history[name].append(variable.numpy())
    return {name: np.stack(values) for name, values in history.items()}


def test_every_trajectory_is_tested():
    assert set(OPTIMIZERS) == {name.rpartition("__")[0] for name in OUTPUTS.files}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trajectory(name):
    found = trajectory(OPTIMIZERS[name]())
    for variable in NAMES:
        expected, values = OUTPUTS[f"{name}__{variable}"], found[variable]
        if name == "adam_accum2_mean":  # recorded after each update: that is, after batches 2 and 4
            np.testing.assert_array_equal(values[0], INPUTS[f"param0__{variable}"])
            np.testing.assert_array_equal(values[2], values[1])
            values = values[[1, 3]]
        np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["lamb_nowd", "adafactor_relative"])
def test_what_keras_has_and_has_right(name):
    """Keras' Lamb without decay, and its Adafactor where nothing but the relative step is asked for."""
    right = {
        "lamb_nowd": keras.optimizers.Lamb(0.01, epsilon=1e-6),
        "adafactor_relative": keras.optimizers.Adafactor(0.01),
    }
    found = trajectory(right[name])
    for variable in NAMES:
        np.testing.assert_allclose(found[variable], OUTPUTS[f"{name}__{variable}"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("adam", lambda: keras.optimizers.Adam(0.01, epsilon=1e-6)),
        ("lamb", lambda: keras.optimizers.Lamb(0.01, epsilon=1e-6, weight_decay=0.01)),
        ("adafactor_fixedlr", lambda: keras.optimizers.Adafactor(0.01, relative_step=False)),
        ("adafactor_wd", lambda: keras.optimizers.Adafactor(0.01, relative_step=False, weight_decay=0.05)),
    ],
)
def test_what_keras_still_has_differently(name, optimizer):
    found = trajectory(optimizer())
    assert max(np.abs(found[variable] - OUTPUTS[f"{name}__{variable}"]).max() for variable in NAMES) > 1e-5
