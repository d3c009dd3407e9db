"""Callbacks for `fit`: trainings that resume exactly after `kill -9`, and end with an error at NaN.

Keras' BackupAndRestore writes over the only good state, and forgets dropout's random numbers, the order of the data
and what other callbacks remember.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfloader.border import public
from tfloader.checkpoints.base import TensorSpec
from tfloader.checkpoints.safetensors import SafetensorsCheckpoint
from tfloader.checkpoints.safetensors_writer import write_safetensors
from tfloader.errors import TrainingError, listing
from tfloader.optimizers.averaging import own_weights
from tfloader.optimizers.building import build_optimizer

# The attributes in which Keras' callbacks, and `BestWeights`, keep what they know of earlier epochs.
MEMORY = ("best", "best_epoch", "wait", "stopped_epoch", "cooldown_counter")


class Callback(keras.callbacks.Callback):
    """A callback with which the optimizer is built before the first step (see tfloader/optimizers/building.py)."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        build_optimizer(self.model)


class TrainingBackup(Callback):
    """Saves the state of a training after each epoch, and brings the last one back.

        best = BestWeights("run/best.safetensors", monitor="val_f1", mode="max")
        backup = TrainingBackup("run", remember=[best])
        epoch = backup.restore(model)                                    # 0 if there is no state yet
        model.fit(
            data.repeat(epoch * steps), steps_per_epoch=steps, initial_epoch=epoch, epochs=10,
            callbacks=[best, backup],                                    # the backup is the last
        )

    Run the same script again after an interruption: it repeats the steps of the unfinished epoch, and then everything
    is as it would have been. For states in the middle of long passes over the data, let an epoch have fewer steps.

    A state is one file, which takes the place of the one before in a single step: all variables of the model (those of
    its random numbers too) and of the optimizer, the epochs' logs, what the callbacks in `remember` remember. Random
    numbers that Python code draws are not in it.

    Args:
        folder: of this training alone; the state is state.safetensors in it. Delete that file to start anew.
        remember: the callbacks that go by earlier epochs: `BestWeights`, and Keras' ModelCheckpoint, EarlyStopping and
            ReduceLROnPlateau.

    Attributes:
        history: {name: values}, the logs of all epochs, those before the interruption included.

    Raises:
        TrainingError: EarlyStopping is to restore weights that it holds in memory only.
    """

    @public
    def __init__(self, folder: str | os.PathLike[str], remember: Sequence[keras.callbacks.Callback] = ()) -> None:
        super().__init__()
        self.path = Path(folder) / "state.safetensors"
        self.remember, self._names = list(remember), [type(callback).__name__ for callback in remember]
        self.history: dict[str, list[float]] = {}
        self._memories: list[Any] | None = None
        if any(getattr(callback, "restore_best_weights", False) for callback in remember):
            raise TrainingError(
                "EarlyStopping(restore_best_weights=True) holds the best weights in memory, which an interruption ends."
                " Let BestWeights write them to a file, and load that file after the training."
            )

    @public
    def restore(self, model: keras.Model) -> int:
        """Brings the last state back into a compiled model; the number of epochs done, `fit`'s initial_epoch (or 0).

        Raises:
            TrainingError: the state is of another model, optimizer or list of callbacks.
            CheckpointError: the file cannot be read.
        """
        if not self.path.exists():
            return 0
        kinds = {"epoch": int, "history": dict, "remember": list, "memories": list}
        training = _load(self.path, _variables(model), kinds, self._names)
        self.history, self._memories = training["history"], training["memories"]
        return training["epoch"]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Some callbacks reset themselves when `fit` begins, so their attributes are restored after that.
        for callback, values in zip(self.remember, self._memories or (), strict=False):
            vars(callback).update(values)
        self._memories = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        memories = [_memory(callback) for callback in self.remember]
        training = {"epoch": epoch + 1, "history": self.history, "remember": self._names, "memories": memories}
        with own_weights(self.model.optimizer):
            write_variables(self.path, _variables(self.model), {"training": json.dumps(training)})


class BestWeights(Callback):
    """Keeps the weights of the epoch with the best value of a metric in a file, which is whole at all times.

    A value that is NaN is never the best. After `EvaluateAverage` it keeps the average, which was evaluated.

    Args:
        path: the file, which ends in ".safetensors". It holds the model's variables alone, without the optimizer's.
        monitor: a metric's name in the logs of `fit`; other callbacks may have put it there before this one.
        mode: "max" or "min": which values are better.

    Attributes:
        best, best_epoch: the best value and its epoch, from 0; None before the first.

    Raises:
        TrainingError: an unknown mode or another ending; from `fit`: the logs have no such metric.
    """

    @public
    def __init__(self, path: str | os.PathLike[str], monitor: str = "val_loss", mode: str = "min") -> None:
        super().__init__()
        self.path, self.monitor, self.mode = Path(path), monitor, mode
        self.best: float | None = None
        self.best_epoch: int | None = None
        if mode not in ("max", "min") or self.path.suffix != ".safetensors":
            raise TrainingError(
                f"BestWeights: expected a path that ends in '.safetensors', and mode 'max' or 'min'; found '{path}' "
                f"and {mode!r}."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        if self.monitor not in logs:
            raise TrainingError(f"BestWeights: no {self.monitor!r} in the logs, which have {', '.join(logs)}.")
        value = float(logs[self.monitor])
        is_better = self.best is None or (value > self.best if self.mode == "max" else value < self.best)
        if is_better and not np.isnan(value):
            self.best, self.best_epoch = value, epoch
            training = {self.monitor: value, "epoch": epoch}
            write_variables(self.path, _named(self.model.variables), {"training": json.dumps(training)})

    @public
    def restore(self, model: keras.Model) -> None:
        """Puts the best weights into the model.

        Raises:
            TrainingError: they are another model's.
            CheckpointError: there is no file, or it cannot be read.
        """
        _load(self.path, _named(model.variables), {"epoch": int})


class StopOnNaN(Callback):
    """Ends `fit` with a TrainingError that names step and outputs, after the first batch whose loss is not finite.

    With steps_per_execution = n the losses are seen after every n batches.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        losses = {name: float(value) for name, value in (logs or {}).items() if name.endswith("loss")}
        wrong = [f"{name} is {value}" for name, value in losses.items() if not np.isfinite(value)]
        if wrong:
            iteration = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
            raise TrainingError(
                f"{', '.join(wrong)} after batch {batch + 1} of epoch {self._epoch + 1} (iteration {iteration} of the "
                "optimizer). The weights have taken it up: go back to the last saved ones. Common causes: labels out "
                "of range, rows without a real position, a high learning rate, and float16 without loss scaling."
            )


def _variables(model: keras.Model) -> dict[str, Any]:
    """All that training changes."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return _named([*model.variables, *model.optimizer.variables])


def _named(variables: Iterable[Any]) -> dict[str, Any]:
    """Variables by names that are the same in another process: Keras numbers what has no name of its own anew."""
    return {f"{index:05d}/{re.sub('_[0-9]+', '', item.path)}": item for index, item in enumerate(variables)}


def _spec(variable: Any) -> TensorSpec:
    return TensorSpec(tuple(variable.shape), keras.backend.standardize_dtype(variable.dtype))


def write_variables(path: Path, variables: dict[str, Any], metadata: dict[str, str]) -> None:
    """Writes variables as one safetensors file, which takes the place of an earlier one in a single step."""
    write_safetensors(
        path.parent,
        [(name, _spec(item), partial(keras.ops.convert_to_numpy, item)) for name, item in variables.items()],
        metadata=metadata,
        max_shard_bytes=sys.maxsize,  # several files could not take their places in one step
        stem=path.stem,
    )


def _load(path: Path, variables: dict[str, Any], kinds: dict[str, type], remember: Any = None) -> dict[str, Any]:
    """Assigns all variables, if they are those of the file; returns what else was saved, by names of these kinds."""
    with SafetensorsCheckpoint(str(path)) as state:
        try:
            training = json.loads(state.metadata["training"])
            if not all(isinstance(training[name], kind) for name, kind in kinds.items()):
                raise TypeError(f"expected {kinds}")
        except (KeyError, TypeError, ValueError, RecursionError) as reason:
            raise TrainingError(
                f"{path}: not a file that TrainingBackup or BestWeights wrote, or a damaged one."
            ) from reason
        expected = {name: _spec(variable) for name, variable in variables.items()}
        problems = misfits(state, expected)
        if training.get("remember") != remember:
            problems.append(f"remember: {training.get('remember')} in the file, {remember} here")
        if problems:
            raise TrainingError(
                f"{path} is of another training. Run the script as it was, or delete the file to start anew:\n"
                f"{listing(problems)}"
            )
        for name, variable in variables.items():
            variable.assign(state.read(name))
    return training


def misfits(state: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec]) -> list[str]:
    """What a file has besides the expected tensors, lacks of them, or has of another kind."""
    return [
        *(f"{name}: only in the file" for name in state if name not in expected),
        *(f"{name}: not in the file" for name in expected if name not in state),
        *(
            f"{name}: {state[name].dtype} {state[name].shape} in the file, {spec.dtype} {spec.shape} here"
            for name, spec in expected.items()
            if name in state and state[name] != spec
        ),
    ]


def _memory(callback: keras.callbacks.Callback) -> dict[str, float | None]:
    """What a callback remembers, as plain numbers."""
    values = {name: getattr(callback, name) for name in MEMORY if hasattr(callback, name)}
    return {name: value if value is None or isinstance(value, int) else float(value) for name, value in values.items()}
