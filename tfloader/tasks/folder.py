"""A task as a folder: Hugging Face's for its network, task.json for its kind, task.safetensors for further weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import keras

from tfloader.errors import CheckpointError
from tfloader.files import write_json
from tfloader.models.builder import save
from tfloader.naming.writing import TASK_FILE, TASK_WEIGHTS, in_place_of_an_earlier_save, release_to_write
from tfloader.staging import staged
from tfloader.training.callbacks import write_variables

if TYPE_CHECKING:
    from tfloader.tasks.base import Task


def save_task(task: Task, folder: str | os.PathLike[str]) -> None:
    """Writes a task; see `Task.save`."""
    transformer = task.network.transformer
    release = release_to_write(transformer.config, "huggingface", transformer.release)
    replaced = in_place_of_an_earlier_save(os.fspath(folder), release, transformer.config, task.tokenizer)
    further = further_variables(task)
    with staged(folder, CheckpointError, 0, replaced) as stage:
        save(task.network, stage, tokenizer=task.tokenizer)
        noted = {"task": type(task).__name__, **{name: getattr(task, name) for name in task.settings}}
        write_json(os.path.join(stage, TASK_FILE), noted)
        if further:
            write_variables(Path(stage, TASK_WEIGHTS), further, {})


def further_variables(task: Task) -> dict[str, keras.Variable]:
    """What the task's model has beyond its network, by path, but for the states of random numbers."""
    known = set(map(id, task.network.variables))
    return {variable.path: variable for variable in task.model.weights if id(variable) not in known}
