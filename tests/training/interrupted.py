"""A small training that can be killed: python -m tests.training.interrupted FOLDER MOMENT..., once at each moment."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from tfloader import DataGenerator
from tfloader.training.callbacks import BestWeights, TrainingBackup

STEPS = 3  # of the 4 in a pass over the data: epochs end in the middle of passes
EPOCHS = 5


class Points(DataGenerator):
    def collate(self, items):
        features = np.array(items, "float32")
        return features, np.sin(features.sum(axis=1, keepdims=True))


class Scripted(keras.callbacks.Callback):
    """Puts a metric into the logs that is best in epoch 1."""

    def on_epoch_end(self, epoch, logs=None):
        logs["val_f1"] = [0.1, 0.9, 0.3, 0.2, 0.4][epoch]


class Death(keras.callbacks.Callback):
    """Kills this process, as kill -9 does."""

    def __init__(self, when):
        super().__init__()
        self.when, self.epoch = when, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.when, self.epoch, batch) == ("in mid-epoch", 2, 1):
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch_end(self, epoch, logs=None):
        if (self.when, epoch) == ("in mid-save", 3):
            os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)


def train(folder, when="never"):
    """Trains, or goes on; returns (final variables, backup, best, epochs done before)."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dropout(0.3)(keras.layers.Dense(8, activation="tanh")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    model.compile(keras.optimizers.Adam(0.05), "mse")
    data = Points(np.random.default_rng(0).normal(size=(30, 4)).tolist(), 8, seed=2)
    best = BestWeights(Path(folder) / "best.safetensors", "val_f1", "max")
    plateau = keras.callbacks.ReduceLROnPlateau("val_f1", factor=0.5, patience=2, mode="max")
    backup = TrainingBackup(folder, remember=[best, plateau])
    done = backup.restore(model)
    model.fit(
        data.repeat(done * STEPS),
        steps_per_epoch=STEPS,
        initial_epoch=done,
        epochs=EPOCHS,
        callbacks=[Scripted(), best, plateau, Death(when), backup],
        verbose=0,
    )
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables], backup, best, done


def killed(folder: str, when: str) -> None:
    """Trains in a process of its own until its death, and keeps the state that it leaves."""
    child = os.fork()
    if child == 0:
        train(folder, when)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    shutil.copyfile(Path(folder, "state.safetensors"), Path(folder, f"state {when}"))


if __name__ == "__main__":
    for moment in sys.argv[2:]:
        killed(sys.argv[1], moment)
