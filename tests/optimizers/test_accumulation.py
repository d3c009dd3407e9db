"""k small batches train as one large batch does, and on the k-th."""

from __future__ import annotations

import itertools
import warnings

import keras
import numpy as np
import pytest

from tests.optimizers import small
from tests.optimizers.reference import variables
from tfloader import optimizers


def fitted(optimizer, batch_size, weights=None, epochs=2):
    model = small.model()
    model.compile(optimizer, "mse", weighted_metrics=[], run_eagerly=True)
    model.fit(*small.data(), sample_weight=weights, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0)
    return model


ADAM = {"learning_rate": 0.01}
SCHEDULED = keras.optimizers.schedules.PolynomialDecay(0.05, 4)


@pytest.mark.parametrize("weighted", [False, True], ids=["", "sample weights"])
@pytest.mark.parametrize(
    ("parts", "arguments"),
    [
        ((), ADAM),
        ((), {**ADAM, "clipnorm": 0.05}),
        ((), {**ADAM, "global_clipnorm": 0.05}),
        ((), {"learning_rate": SCHEDULED}),
        ((), {**ADAM, "use_ema": True, "ema_momentum": 0.5}),
        ((optimizers.WeightDecay, optimizers.Lookahead), {**ADAM, "steps_per_slow_update": 2}),
        ((optimizers.LayerAdaptation, optimizers.PiecewiseLinearLearningRate), {**ADAM, "lr_schedule": {2: 1, 4: 0}}),
    ],
    ids=["adam", "clipnorm", "global_clipnorm", "schedule", "use_ema", "decay, lookahead", "adaptation, schedule"],
)
def test_small_batches_train_as_one_large_batch_does(parts, arguments, weighted):
    weights = np.random.default_rng(3).uniform(0.1, 2, size=16).astype("float32") if weighted else None
    made = optimizers.extend(keras.optimizers.Adam, *parts)
    large = fitted(made(**arguments), 8, weights)
    accumulating = optimizers.extend_with_gradient_accumulation(made)(grad_accum_steps=4, **arguments)
    accumulated = fitted(accumulating, 2, weights)
    assert small.difference(large, accumulated) < 1e-6
    assert int(accumulating.iterations) == 4


def test_the_update_comes_on_the_kth_batch_and_an_incomplete_group_goes_on_in_the_next_fit():
    optimizer = optimizers.extend_with_gradient_accumulation(keras.optimizers.SGD)(0.1, grad_accum_steps=3)
    model = small.model()
    model.compile(optimizer, "mse", run_eagerly=True)
    x, y = small.data(12)
    history = [model.get_weights()]
    for start in range(0, 12, 2):
        model.train_on_batch(x[start : start + 2], y[start : start + 2])
        history.append(model.get_weights())
    changed = [any((a != b).any() for a, b in zip(one, two, strict=True)) for one, two in itertools.pairwise(history)]
    assert changed == [False, False, True, False, False, True]


def test_an_infinite_gradient_does_not_outlive_its_group():
    (variable,) = variables({"a/kernel": np.ones(2)}, "float32")
    optimizer = optimizers.extend_with_gradient_accumulation(keras.optimizers.SGD)(0.5)
    for gradient in (np.inf, 1.0):
        optimizer.apply([keras.ops.full((2,), gradient)], [variable])
    np.testing.assert_array_equal(optimizer._sums[0], 0)


def test_a_variable_without_gradient_is_left_out_and_keras_warns_of_it():
    with_gradient, without = variables({"a/kernel": np.ones(2), "b/kernel": np.ones(2)}, "float32")
    optimizer = optimizers.extend_with_gradient_accumulation(keras.optimizers.SGD)(0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            optimizer.apply([keras.ops.ones(2), None], [with_gradient, without])
    assert any("b/kernel" in str(warning.message) for warning in caught)
    np.testing.assert_array_equal(with_gradient, 0.5)
    np.testing.assert_array_equal(without, 1.0)
