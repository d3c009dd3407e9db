"""`Loss`: a loss as a layer, for losses of several tensors that no (y_true, y_pred) can express."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.errors import LossError
from tfloader.losses.common import as_float32
from tfloader.optimizers.building import build_optimizer_around


@keras.saving.register_keras_serializable("tfloader")
class Loss(keras.layers.Layer):
    """Adds a loss to the model that it is part of, and passes its inputs on. Subclass it, and define `compute_loss`:

        @keras.saving.register_keras_serializable()
        class CrossEntropy(tfloader.Loss):
            def compute_loss(self, inputs, mask=None):
                labels, logits = inputs
                return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)

        output = CrossEntropy(output_axis=1)([labels, logits])

    The model needs no loss in `compile` then, and no y in `fit`. The mean of the loss is among the model's metrics
    under the layer's name.

    Args:
        output_axis: which of the inputs to pass on: an index, a list of indices, or None for all of them.
        metric_names: names of further numbers to average over an epoch, for `add_metric`.
    """

    @public
    def __init__(
        self, output_axis: int | Sequence[int] | None = None, metric_names: Sequence[str] = (), **kwargs: Any
    ) -> None:
        # The loss is float32 under any policy, and what passes on keeps its dtype.
        super().__init__(autocast=False, **{"dtype": "float32", **kwargs})
        self.output_axis = output_axis if output_axis is None or isinstance(output_axis, int) else list(output_axis)
        self.metric_names = list(metric_names)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in [self.name, *metric_names]}

    def compute_loss(self, inputs: Any, mask: Any = None) -> Any:
        """The loss, a number or an array whose mean counts; floating inputs come as float32 in any precision.

        Args:
            inputs: what the layer was called with.
            mask: the inputs' masks, in the same structure; None where there is none.
        """
        raise NotImplementedError("Define compute_loss(self, inputs, mask) in your subclass.")

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return self.add_and_pass_on(self.compute_loss(floats_as_float32(inputs), mask), inputs)

    def add_and_pass_on(self, loss: Any, inputs: Any) -> Any:
        build_optimizer_around(self)
        loss = ops.mean(loss)
        self.add_loss(loss)
        self.add_metric(loss, self.name)
        return self._chosen(inputs)

    def add_metric(self, value: Any, name: str) -> None:
        """Averages a number over the epoch under a name that `metric_names` declares.

        Raises:
            LossError: it does not.
        """
        if name not in self.trackers:
            raise LossError(f"{self.name}: pass metric_names=[{name!r}] to the layer; it has {list(self.trackers)}.")
        self.trackers[name].update_state(value)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return None if mask is None else self._chosen(mask)

    def _chosen(self, items: Any) -> Any:
        if self.output_axis is None:
            return items
        if isinstance(self.output_axis, int):
            return items[self.output_axis]
        return [items[index] for index in self.output_axis]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output_axis": self.output_axis, "metric_names": self.metric_names}


def floats_as_float32(inputs: Any) -> Any:
    """Floating tensors as float32, the others as they are."""
    return keras.tree.map_structure(lambda x: as_float32(x) if keras.backend.is_float_dtype(x.dtype) else x, inputs)
