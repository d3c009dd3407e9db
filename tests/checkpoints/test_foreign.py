"""What is said of a checkpoint whose tensors are named as in no release."""

from __future__ import annotations

import numpy as np
import pytest

from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.foreign import described
from tfloader.errors import CheckpointError
from tfloader.naming import detect_release

NAMES = {
    "object-based checkpoint": [
        "model/layer-0/kernel/.ATTRIBUTES/VARIABLE_VALUE",
        "save_counter/.ATTRIBUTES/VARIABLE_VALUE",
    ],
    "`.weights.h5` of Keras 3": ["layers/dense/vars/0", "layers/dense/vars/1", "optimizer/vars/0", "_pad/vars/12"],
    "moving averages": ["bert/encoder/kernel/ExponentialMovingAverage", "global_step"],
    "an optimizer's state": ["a/kernel/Adam", "a/kernel/Adam_1", "b/kernel/adam_m"],
}


@pytest.mark.parametrize("words", NAMES)
def test_what_wrote_it_is_said(words):
    tensors = {name: np.zeros(1, np.float32) for name in NAMES[words]}
    with open_checkpoint(tensors) as checkpoint, pytest.raises(CheckpointError) as caught:
        detect_release(checkpoint)
    assert "It is a" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("names", [[], ["kernel", "bias"], ["encoder.layer.0.weight"]])
def test_nothing_is_said_where_the_names_do_not_tell(names):
    assert described(names) == ""


def test_names_that_keras_and_tensorflow_give_are_known(tmp_path):
    import h5py
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.save_weights(tmp_path / "x.weights.h5")
    names = []
    with h5py.File(tmp_path / "x.weights.h5") as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    assert "Keras 3" in described(names)
    path = tf.train.Checkpoint(v=tf.Variable([1.0])).write(str(tmp_path / "ck"))
    assert "TensorFlow 2" in described(list(open_checkpoint(path)))
