"""StopOnNaN."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfloader import StopOnNaN
from tfloader.errors import TrainingError


def fit(labels, **options):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, {"fine": keras.layers.Dense(1)(inputs), "wrong": keras.layers.Dense(1)(inputs)})
    model.compile("sgd", {"fine": "mse", "wrong": "mse"}, **options)
    targets = {"fine": np.ones((8, 1)), "wrong": labels[:, None]}
    model.fit(np.ones((8, 1)), targets, batch_size=2, epochs=2, shuffle=False, verbose=0, callbacks=[StopOnNaN()])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_it_names_the_step_and_the_output(bad):
    labels = np.ones(8)
    labels[5] = bad
    with pytest.raises(TrainingError, match=r"wrong_loss is (nan|inf)") as caught:
        fit(labels)
    assert "after batch 3 of epoch 1 (iteration 3 of the optimizer)" in str(caught.value)
    assert "fine_loss" not in str(caught.value)


def test_with_several_steps_an_execution_it_names_the_last():
    labels = np.ones(8)
    labels[5] = np.nan
    with pytest.raises(TrainingError, match=r"after batch 4 of epoch 1 \(iteration 4"):
        fit(labels, steps_per_execution=2)


def test_finite_losses_pass():
    fit(np.ones(8))
