"""How a task trains: Keras' `fit` with the optimizer, callbacks and order of batches that suit fine-tuning."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tfloader.border import public
from tfloader.data.generator import DataGenerator
from tfloader.errors import TrainingError
from tfloader.files import read_json, write_json
from tfloader.optimizers import (
    PiecewiseLinear,
    extend_with_parameter_wise_lr,
    extend_with_weight_decay,
    layer_wise_decay,
)
from tfloader.tasks.curves import draw_curves
from tfloader.training.adversarial import adversarial_training
from tfloader.training.callbacks import BestWeights, StopOnNaN, TrainingBackup

if TYPE_CHECKING:
    from tfloader.tasks.base import Example, Task


@public
def fit(
    self: Task,
    train: Any,
    validation: Any = None,
    epochs: int = 3,
    batch_size: int = 16,
    learning_rate: float = 2e-5,
    *,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
    layer_decay: float = 1.0,
    optimizer: keras.optimizers.Optimizer | None = None,
    adversarial: Any = None,
    class_weight: Mapping[str, float] | None = None,
    patience: int | None = None,
    output: str | os.PathLike[str] | None = None,
    tensorboard: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    verbose: int | str = "auto",
) -> dict[str, list[float]]:
    """Trains on labelled items; with validation items, the best epoch's weights are those that stay.

    Args:
        train, validation: labelled items: a list, a table, a data set.
        learning_rate: of Adam at its height: it climbs over the share `warmup` of all steps and falls to 0.
        weight_decay: decoupled; norms and biases have none.
        layer_decay: how many times as fast each layer learns as the one above it (0.9, say).
        optimizer: in place of these four.
        adversarial: a method of `adversarial_training`, or a list of them: `FGM(0.5)`, on the tokens' embeddings.
        class_weight: label -> weight of its items in the loss.
        patience: ends the training after so many epochs without a better metric on the validation items.
        output: a folder. The training then resumes where it was interrupted if it is run again, and curves.png is drawn
            there (with matplotlib).
        tensorboard: writes logs for TensorBoard under `output`.
        seed: of the order of the items.
        verbose: as in Keras; "auto": a progress bar on a terminal, nothing elsewhere.

    Returns:
        {name: a value for each epoch}: the loss, and the metrics on the validation items as "val_...".

    Raises:
        DataError: naming each item that is none.
        TrainingError: the loss is not finite, or an option has no effect.
    """
    if epochs < 1:
        raise TrainingError(f"epochs: expected at least 1, found {epochs}.")
    if validation is None and patience is not None:
        raise TrainingError("patience: nothing says which epoch is better. Give validation items.")
    if output is None and tensorboard:
        raise TrainingError("tensorboard: give output=, the folder for its logs.")
    batches = Batches(self, self.examples(train), batch_size, seed)
    steps = len(batches)
    weights = None if class_weight is None else self.class_weights(class_weight)
    noted = {
        "task": type(self).__name__,
        "labels": list(self.labels),
        "data": digest(batches.data),
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        "learning_rate": learning_rate,
        "warmup": warmup,
        "weight_decay": weight_decay,
        "layer_decay": layer_decay,
        "class_weight": {str(number): weight for number, weight in (weights or {}).items()},
    }
    if optimizer is None:
        optimizer = adam(self.model, steps * epochs, learning_rate, warmup, weight_decay, layer_decay)
    self.model.compile(optimizer, self.loss)
    with contextlib.ExitStack() as stack:
        folder = Path(output or stack.enter_context(tempfile.TemporaryDirectory()))
        if adversarial is not None:
            methods = adversarial if isinstance(adversarial, (list, tuple)) else [adversarial]
            stack.callback(adversarial_training(self.model, "Embedding-Token", *methods).remove)
        measuring, judging, best = [StopOnNaN()], [], None
        if validation is not None:
            measuring.append(Evaluation(self, self.examples(validation), batch_size))
            best = BestWeights(folder / "best.safetensors", f"val_{self.monitor}", "max")
            judging = [best]
        if patience is not None:
            judging.append(keras.callbacks.EarlyStopping(f"val_{self.monitor}", mode="max", patience=patience))
        if tensorboard:
            measuring.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
        backup = TrainingBackup(folder, remember=judging)
        if output:
            same_training(folder, noted)
        done = backup.restore(self.model) if output else 0
        if patience is not None and done and done > patience + np.argmax(backup.history[f"val_{self.monitor}"]):
            epochs = done
        history = self.model.fit(
            batches.repeat(done * steps),
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=epochs,
            callbacks=[*measuring, *callbacks, *judging, *([backup] if output else [])],
            class_weight=weights,
            shuffle=False,
            verbose=int(sys.stdout.isatty()) if verbose == "auto" else verbose,
        ).history
        if best is not None:
            best.restore(self.model)
        if output:
            history = backup.history
            draw_curves(history, folder / "curves.png")
    return history


def digest(examples: Sequence[Example]) -> str:
    """By which the items of a training are known again."""
    found = hashlib.sha256()
    for example in examples:
        found.update(repr((example.ids, example.places, np.asarray(example.target).tolist())).encode())
    return found.hexdigest()


def same_training(folder: Path, noted: dict[str, Any]) -> None:
    """Notes what a training is in its folder, and refuses one that is not what was noted there.

    Raises:
        TrainingError: naming what differs.
    """
    path = folder / "training.json"
    if not path.exists():
        return write_json(str(path), noted, TrainingError)
    before = read_json(str(path), TrainingError)
    differing = [name for name in {**noted, **before} if noted.get(name) != before.get(name)]
    if differing:
        raise TrainingError(
            f"{folder} holds a training with other {', '.join(differing)}. Run it as it was, or give another folder."
        )


class Batches(DataGenerator):
    """Batches of examples of like lengths, in an order that goes by seed and epoch."""

    def __init__(self, task: Task, examples: Sequence[Example], batch_size: int, seed: int) -> None:
        super().__init__(examples, batch_size, length_of=lambda example: len(example.ids), seed=seed)
        self.task = task

    def collate(self, items: list[Example]) -> tuple[Any, Any]:
        return self.task.inputs(items), self.task.targets(items)


class Evaluation(keras.callbacks.Callback):
    """Puts a task's metrics on some examples into the logs of each epoch, as "val_...", for callbacks after it."""

    def __init__(self, task: Task, examples: Sequence[Example], batch_size: int) -> None:
        super().__init__()
        self.task, self.examples, self.batch_size = task, examples, batch_size

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        scores = self.task.score(self.examples, self.task.answer(self.examples, self.batch_size))
        (logs if logs is not None else {}).update({f"val_{name}": value for name, value in scores.items()})


def adam(
    model: keras.Model, steps: int, learning_rate: float, warmup: float, weight_decay: float, layer_decay: float
) -> keras.optimizers.Optimizer:
    """Adam with decoupled weight decay, a warm-up and a linear fall, and slower layers further down."""
    optimizer = extend_with_parameter_wise_lr(extend_with_weight_decay(keras.optimizers.Adam))
    return optimizer(
        PiecewiseLinear(learning_rate, {max(1, round(warmup * steps)): 1, max(2, steps): 0}),
        paramwise_lr_schedule=layer_wise_decay(model, layer_decay) if layer_decay != 1 else {},
        weight_decay_rate=weight_decay,
        global_clipnorm=1.0,
    )
