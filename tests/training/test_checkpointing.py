"""A killed training goes on exactly, no save is ever half there, and a state of another training is refused."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.training.interrupted import EPOCHS, train
from tfloader.errors import CheckpointError, TrainingError
from tfloader.training.callbacks import BestWeights, TrainingBackup

ROOT = Path(__file__).parents[2]


def killed(folder, *moments):
    """The state that a training leaves which is killed at each of these moments, and begun again after it."""
    command = [sys.executable, "-m", "tests.training.interrupted", str(folder), *moments]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return [(folder / f"state {moment}").read_bytes() for moment in moments]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, *train(folder)


def test_a_training_killed_in_mid_epoch_and_in_mid_save_ends_as_if_it_had_not_been(uninterrupted, tmp_path):
    folder, variables, backup, best, _ = uninterrupted
    first, second = killed(tmp_path, "in mid-epoch", "in mid-save")
    assert first != second  # epoch 2 was finished in between
    assert len(list(tmp_path.glob(".tfloader.*.part"))) == 1
    for left in tmp_path.glob("state in *"):
        left.unlink()
    found, resumed, kept, done = train(tmp_path)
    assert done == 3
    for one, other in zip(found, variables, strict=True):
        np.testing.assert_array_equal(one, other)
    assert resumed.history == backup.history
    assert len(resumed.history["loss"]) == EPOCHS
    assert (kept.best, kept.best_epoch) == (best.best, best.best_epoch) == (0.9, 1)
    assert (tmp_path / "best.safetensors").read_bytes() == (folder / "best.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.safetensors", "state.safetensors"]


def test_a_finished_training_is_not_run_again(uninterrupted):
    folder, variables, *_ = uninterrupted
    found, backup, _, done = train(folder)
    assert done == EPOCHS and len(backup.history["loss"]) == EPOCHS
    for one, other in zip(found, variables, strict=True):
        np.testing.assert_array_equal(one, other)


def model_of(units, optimizer="adam"):
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(units, name="top")(inputs))
    model.compile(optimizer, "mse")
    return model


def fit(model, *callbacks, epochs=1):
    shape = (2, model.output.shape[-1])
    return model.fit(np.ones((2, 2)), np.ones(shape), epochs=epochs, callbacks=list(callbacks), verbose=0)


def test_without_a_state_nothing_is_restored(tmp_path):
    assert TrainingBackup(tmp_path / "none").restore(model_of(1)) == 0


def test_a_state_of_another_training_is_refused_with_all_differences(tmp_path):
    fit(model_of(1), TrainingBackup(tmp_path))
    other = model_of(3, "sgd")
    weights = other.get_weights()
    stopping = keras.callbacks.EarlyStopping("loss")
    with pytest.raises(TrainingError) as error:
        TrainingBackup(tmp_path, remember=[stopping]).restore(other)
    message = str(error.value)
    assert str(tmp_path / "state.safetensors") in message
    assert "top/kernel: float32 (2, 1) in the file, float32 (2, 3) here" in message
    assert re.search(r"adam/\S*velocity: only in the file", message)
    assert re.search("(?i)sgd/iteration: not in the file", message)
    assert "remember: [] in the file, ['EarlyStopping'] here" in message
    for one, before in zip(other.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, before)


def test_a_damaged_state_is_refused(tmp_path):
    fit(model_of(1), TrainingBackup(tmp_path))
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"state\.safetensors"):
        TrainingBackup(tmp_path).restore(model_of(1))


@pytest.mark.parametrize(
    "noted", [None, "{", "[1]", "{}", "3", '{"epoch": "x"}', '{"epoch": 1, "history": []}', "[" * 9999]
)
def test_a_file_that_no_callback_wrote_is_refused(tmp_path, noted):
    path = tmp_path / "state.safetensors"
    save_file({"a": np.zeros(1)}, path, metadata={"format": "pt"} if noted is None else {"training": noted})
    for restore in (TrainingBackup(tmp_path).restore, BestWeights(path).restore):
        with pytest.raises(TrainingError, match=r"state\.safetensors: not a file that .* wrote|is of another training"):
            restore(model_of(1))


def test_callbacks_remember_earlier_epochs(tmp_path):
    stopping = keras.callbacks.EarlyStopping("loss", patience=5)
    fit(model_of(1), stopping, TrainingBackup(tmp_path, remember=[stopping]), epochs=3)
    again = keras.callbacks.EarlyStopping("loss", patience=5)
    backup = TrainingBackup(tmp_path, remember=[again])
    model = model_of(1)
    assert backup.restore(model) == 3

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.seen = again.best, again.wait, again.best_epoch

    look = Look()
    model.fit(np.ones((2, 2)), np.ones((2, 1)), initial_epoch=3, epochs=4, callbacks=[again, look, backup], verbose=0)
    assert look.seen == (stopping.best, stopping.wait, stopping.best_epoch)
    assert len(backup.history["loss"]) == 4


def test_best_weights_that_are_in_memory_only_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="BestWeights write them to a file"):
        TrainingBackup(tmp_path, remember=[keras.callbacks.EarlyStopping(restore_best_weights=True)])


@pytest.mark.parametrize("scores", [[0.5, 0.7, 0.2, 0.7], [np.nan, 0.7, 0.2, np.nan]], ids=str)
@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 2)])
def test_best_weights_are_those_of_the_best_epoch(tmp_path, mode, best, scores):
    model, weights = model_of(1), []

    class Score(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["score"] = scores[epoch]
            weights.append(model.get_weights())

    keeper = BestWeights(tmp_path / "new" / "best.safetensors", "score", mode)
    fit(model, Score(), keeper, epochs=4)
    assert keeper.best_epoch == best
    keeper.restore(model)
    for one, other in zip(model.get_weights(), weights[best], strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in keeper.path.parent.iterdir()] == ["best.safetensors"]


def test_best_weights_stay_whole_when_a_save_fails(tmp_path, monkeypatch):
    model, keeper = model_of(1), BestWeights(tmp_path / "best.safetensors", "loss")
    fit(model, keeper)
    before = keeper.path.read_bytes()

    def fails(*paths):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(CheckpointError, match="disk full"):
        keeper.on_epoch_end(1, {"loss": -1.0})
    assert keeper.path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [keeper.path]


def test_best_weights_want_a_metric_that_there_is_and_a_path_that_keras_can_load(tmp_path):
    with pytest.raises(TrainingError, match="no 'val_f1' in the logs, which have loss"):
        fit(model_of(1), BestWeights(tmp_path / "a.safetensors", "val_f1", "max"))
    for path, mode in (("a.h5", "max"), ("a.safetensors", "auto")):
        with pytest.raises(TrainingError, match=r"ends in '\.safetensors', and mode 'max' or 'min'"):
            BestWeights(path, "loss", mode)
