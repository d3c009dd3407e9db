"""Embeddings: whole gradients and lazy rows in `fit`; what layer adaptation and lazy updates refuse."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.optimizers import small
from tests.optimizers.reference import variables
from tfloader import optimizers
from tfloader.errors import TrainingError


class DenseTable(keras.layers.Layer):
    """An embedding by one-hot products, whose gradient is dense."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embeddings = self.add_weight(shape=(7, 4), initializer="zeros")

    def call(self, ids):
        return keras.ops.one_hot(ids, 7) @ self.embeddings


def with_dense_table() -> keras.Model:
    model = small.model(DenseTable())
    model.set_weights(small.model().get_weights())
    return model


@pytest.mark.parametrize("clipping", [{}, {"clipnorm": 0.05}, {"global_clipnorm": 0.05}, {"clipvalue": 0.01}], ids=str)
@pytest.mark.parametrize("name", ["Adam", "RMSprop"])
def test_an_embedding_trains_as_its_dense_gradient_says(name, clipping):
    made = optimizers.extend(getattr(keras.optimizers, name))
    expected = small.fit(made(0.01, **clipping), start=with_dense_table())
    assert small.difference(small.fit(made(0.01, **clipping)), expected) < 2e-6


@pytest.mark.parametrize("made", [optimizers.Adam, optimizers.AdaFactor], ids=lambda made: made.__name__)
def test_own_optimizers_take_an_embeddings_gradient_whole(made):
    assert small.difference(small.fit(made(0.01)), small.fit(made(0.01), start=with_dense_table())) < 2e-6


def test_keras_adam_still_takes_the_parts_of_an_embeddings_gradient_for_gradients():
    """The reason for WholeGradients; when this fails, Keras has mended it."""
    adam = keras.optimizers.Adam
    assert small.difference(small.fit(adam(0.01)), small.fit(adam(0.01), start=with_dense_table())) > 1e-3


def test_rows_without_gradient_keep_their_bits_and_their_moments_in_fit():
    made = optimizers.extend_with_weight_decay(optimizers.extend_with_lazy_optimization(keras.optimizers.Adam))
    optimizer = made(0.1, weight_decay_rate=0.1, include_in_lazy_optimization=["^table/"])
    start = small.model().get_layer("table").get_weights()[0]
    model = small.fit(optimizer)
    table = model.get_layer("table").get_weights()[0]
    np.testing.assert_array_equal(table[6], start[6])
    assert (table[:6] != start[:6]).all()
    x, y = small.data(4)
    kept = (model.weights[0], optimizer._momentums[0], optimizer._velocities[0])
    before = [variable.numpy() for variable in kept]
    model.fit(np.zeros_like(x), y, verbose=0)
    for one, two in zip(before, [variable.numpy() for variable in kept], strict=True):
        np.testing.assert_array_equal(one[1:], two[1:])
        assert (one[0] != two[0]).all()


def test_lazy_updates_and_layer_adaptation_of_one_variable_are_refused():
    made = optimizers.extend(keras.optimizers.Adam, optimizers.LazyOptimization, optimizers.LayerAdaptation)
    with pytest.raises(TrainingError, match=r"table/embeddings.*exclude_from_layer_adaptation"):
        small.fit(made(include_in_lazy_optimization=["table"]))


def test_lazy_updates_of_a_state_that_rows_share_are_refused():
    made = optimizers.extend_with_lazy_optimization(optimizers.AdaFactor)
    with pytest.raises(TrainingError, match="shared by rows"):
        small.fit(made(min_dim_size_to_factor=1, include_in_lazy_optimization=["table"]))
    small.fit(made(include_in_lazy_optimization=["table"]))  # too small to be factored: all squares are there


class PastTheMethods(keras.optimizers.Optimizer):
    """Writes as Keras asks one not to."""

    def update_step(self, gradient, variable, learning_rate):
        variable.assign_sub(gradient * keras.ops.cast(learning_rate, variable.dtype))


class ByAssignment(keras.optimizers.Optimizer):
    """SGD that sets what others add."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign(variable, variable - gradient * keras.ops.cast(learning_rate, variable.dtype))


@pytest.mark.parametrize(
    ("part", "arguments"),
    [(optimizers.LayerAdaptation, {}), (optimizers.LazyOptimization, {"include_in_lazy_optimization": ["a"]})],
)
def test_optimizers_of_users_work_if_they_write_by_their_methods_and_are_refused_if_not(part, arguments):
    values, gradient = {"a/kernel": np.full((2, 2), 3.0)}, keras.ops.convert_to_tensor([[4.0, 3.0], [0.0, 0.0]])
    (variable,) = variables(values, "float32")
    with pytest.raises(TrainingError, match=r"PastTheMethods.*assign_sub"):
        optimizers.extend(PastTheMethods, part)(0.5, weight_decay=0.1, **arguments).apply([gradient], [variable])
    (variable,) = variables(values, "float32")
    optimizers.extend(ByAssignment, part)(0.5, **arguments).apply([gradient], [variable])
    change = np.array([[4.0, 3.0], [0.0, 0.0]]) * (0.5 if part is optimizers.LazyOptimization else 0.5 * 6 / 5)
    np.testing.assert_allclose(variable, 3 - change, rtol=1e-6)
