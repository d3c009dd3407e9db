"""AdaFactor: its memory, its axes, its exclusions, short floats."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.optimizers.reference import variables
from tfloader.errors import TrainingError
from tfloader.optimizers import AdaFactor


def by_hand(start, gradients, rate, axes, scaled):
    """Section 4 to 7 of the paper, for one tensor: `axes` are the two that are factored."""
    w, rows, columns = start.astype("float64"), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        beta, square = 1 - step**-0.8, gradient**2 + 1e-30
        rows = beta * rows + (1 - beta) * square.mean(axis=axes[0], keepdims=True)
        columns = beta * columns + (1 - beta) * square.mean(axis=axes[1], keepdims=True)
        v = rows * columns / rows.mean(axis=axes[1], keepdims=True)
        u = gradient / np.sqrt(v)
        u = u / max(1.0, np.sqrt((u**2).mean()))
        w = w - rate * (max(1e-3, np.sqrt((w**2).mean())) if scaled else 1.0) * u
    return w


@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize(
    ("shape", "axes"), [((9, 2, 7), (0, 2)), ((7, 9), (1, 0)), ((8, 8), (1, 0)), ((2, 8, 8), (2, 1))]
)
def test_the_two_largest_axes_are_factored(shape, axes, excluded):
    random = np.random.default_rng(0)
    (variable,) = variables({"layer/kernel": random.normal(size=shape)})
    gradients = random.normal(size=(4, *shape))
    optimizer = AdaFactor(
        2**-6, min_dim_size_to_factor=7, exclude_from_parameter_scale=["kernel"] if excluded else None
    )
    start = variable.numpy()
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    np.testing.assert_allclose(variable, by_hand(start, gradients, 2**-6, axes, not excluded), rtol=1e-9)


def test_the_state_of_a_matrix_is_as_large_as_its_sides():
    (matrix, small) = variables({"a/kernel": np.zeros((300, 200)), "b/kernel": np.zeros((300, 100))})
    optimizer = AdaFactor()
    optimizer.build([matrix, small])
    sizes = sorted(int(np.prod(variable.shape)) for variable in optimizer.variables)
    assert sizes == [1, 1, 200, 300, 300 * 100]  # iterations, learning rate, sides, and what is too small to factor
    theirs = keras.optimizers.Adafactor()
    theirs.build([matrix])
    assert 300 * 200 in {int(np.prod(variable.shape)) for variable in theirs.variables}  # Keras' saves nothing


def test_the_own_learning_rate_is_relative_to_the_update_and_smaller_without_parameter_scale():
    for scaled, factor in ((True, 1.0), (False, 0.05)):
        optimizer = AdaFactor(None, multiply_by_parameter_scale=scaled)
        for update in (0, 99, 39999):
            optimizer._iterations.assign(update)
            np.testing.assert_allclose(optimizer.learning_rate, factor * min(0.01, (update + 1) ** -0.5), rtol=1e-6)
        again = AdaFactor.from_config(optimizer.get_config())
        assert again.get_config() == optimizer.get_config() and again.get_config()["learning_rate"] is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_do_not_turn_zero_gradients_into_nan(dtype):
    (variable,) = variables({"a/kernel": np.ones((2, 3))}, dtype)
    optimizer = AdaFactor(0.25, min_dim_size_to_factor=1)
    optimizer.apply([keras.ops.zeros((2, 3), dtype)], [variable])
    np.testing.assert_array_equal(np.asarray(keras.ops.cast(variable, "float32")), 1.0)
    optimizer.apply([keras.ops.ones((2, 3), dtype)], [variable])
    assert (np.asarray(keras.ops.cast(variable, "float32")) < 1).all()


def test_an_exclusion_that_matches_nothing_is_refused():
    with pytest.raises(TrainingError, match="exclude_from_parameter_scale"):
        AdaFactor(exclude_from_parameter_scale=["typo"]).build(variables({"a/kernel": np.zeros((2, 3))}))
