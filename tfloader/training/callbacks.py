"""Callbacks for `fit`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from tfloader.errors import TrainingError


class StopOnNaN(keras.callbacks.Callback):
    """Ends `fit` with an error that names the step and the outputs, after the first batch whose loss is not finite.

    With steps_per_execution = n the losses are seen after every n batches.

    Raises:
        TrainingError: from `fit`.
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
                f"{', '.join(wrong)} after batch {batch + 1} of epoch {self._epoch + 1} "
                f"(iteration {iteration} of the optimizer). The weights have taken it up: "
                "go back to the last saved ones. Common causes are labels out of range, rows without a real position, "
                "a learning rate that is too high, and float16 without loss scaling."
            )
