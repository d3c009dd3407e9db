"""`load_task`: from a folder that `Task.save` wrote to the task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfloader.border import public
from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import TensorSpec
from tfloader.errors import ConfigError, WeightsError, listing
from tfloader.files import read_json
from tfloader.naming.writing import TASK_FILE, TASK_WEIGHTS
from tfloader.suggestions import did_you_mean
from tfloader.tasks.base import Task
from tfloader.tasks.classifier import TextClassifier
from tfloader.tasks.folder import further_variables
from tfloader.tasks.tagger import Tagger
from tfloader.training.callbacks import misfits

TASKS: dict[str, type[Task]] = {kind.__name__: kind for kind in (TextClassifier, Tagger)}


@public
def load_task(folder: str | os.PathLike[str], dtype: Any = None) -> Task:
    """Opens what `Task.save` wrote: model, tokenizer, labels and options, exactly.

    Args:
        dtype: as for `load`.

    Raises:
        ConfigError: the folder holds no task, or task.json is damaged.
        CheckpointError, WeightsError: the weights are damaged, or are not this task's.
    """
    path = Path(folder, TASK_FILE)
    if not path.is_file():
        raise ConfigError(
            f"{folder}: no {TASK_FILE}, so no task was saved there. Open a checkpoint with the class of its task: "
            f"{', '.join(TASKS)}."
        )
    noted = read_json(str(path), ConfigError)
    name = noted.pop("task", None)
    if name not in TASKS:
        raise ConfigError(f"{path}: the task {name!r:.80} is not known{did_you_mean(str(name), TASKS)}.")
    if unknown := noted.keys() ^ set(TASKS[name].settings):
        raise ConfigError(f"{path}: expected the keys task, {', '.join(TASKS[name].settings)}; differing: {unknown}.")
    task = TASKS[name](folder, dtype=dtype, **noted)
    variables, file = further_variables(task), Path(folder, TASK_WEIGHTS)
    if variables or file.exists():
        fill(variables, file)
    return task


def fill(variables: dict[str, keras.Variable], file: Path) -> None:
    """Assigns all variables from a file that has just these."""
    with open_checkpoint(file) as checkpoint:
        # In whatever precision the file has them.
        dtypes = {name: checkpoint[name].dtype for name in checkpoint}
        expected = {
            name: TensorSpec(tuple(variable.shape), dtypes.get(name, "float32")) for name, variable in variables.items()
        }
        if problems := misfits(checkpoint, expected):
            raise WeightsError(f"{file} does not fit the task:\n{listing(problems)}")
        arrays = {name: np.asarray(checkpoint.read(name)) for name in variables}
    for name, variable in variables.items():
        variable.assign(arrays[name])
