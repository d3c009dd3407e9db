"""Learning rates: a schedule of straight lines, and one multiplier for each variable."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
from keras import ops

from tfloader.border import public
from tfloader.errors import TrainingError
from tfloader.keras_private import variable_index
from tfloader.optimizers.decay import OwnDecay
from tfloader.optimizers.extension import Extension, check_number
from tfloader.selection import EXPRESSION, matches, path, quoted

Pairs = Iterable[tuple[Any, float]]


@keras.saving.register_keras_serializable("tfloader")
class PiecewiseLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Straight lines between points, for any Keras optimizer.

    `PiecewiseLinear(2e-5, {1000: 1, 10000: 0.1})` warms up from 0 at step 0 to 2e-5 at step 1000, falls to 2e-6 at step
    10000, and stays there. Step 0 has the factor 0 unless it is given. Keras' gradient_accumulation_steps counts the
    small steps; under `extend_with_gradient_accumulation` a step is an update.

    Args:
        learning_rate: what the factors multiply.
        lr_schedule: {step: factor}.
    """

    @public
    def __init__(self, learning_rate: float, lr_schedule: Mapping[int, float]) -> None:
        self.learning_rate = learning_rate
        self.points = _points(lr_schedule)

    def __call__(self, step: Any) -> Any:
        factor = self.points[0][1]
        for (start, low), (end, high) in itertools.pairwise(self.points):
            line = low + (high - low) * (ops.cast(step - start, "float32") / (end - start))
            factor = ops.where(step < start, factor, line)
        factor = ops.where(step < self.points[-1][0], factor, self.points[-1][1])
        return ops.cast(factor, "float32") * self.learning_rate

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "lr_schedule": dict(self.points)}


def _points(lr_schedule: Any) -> list[tuple[int, float]]:
    try:
        points = sorted((int(step), float(factor)) for step, factor in dict(lr_schedule).items())
    except (TypeError, ValueError):
        points = []
    good = points and points[0][0] >= 0 and all(math.isfinite(factor) and factor >= 0 for _, factor in points)
    if not good or len({step for step, _ in points}) < len(points):
        raise TrainingError(f"lr_schedule is {lr_schedule!r}; expected {{step: factor}} with numbers from 0 up.")
    return points if points[0][0] == 0 else [(0, 0.0), *points]


class PiecewiseLinearLearningRate(Extension):
    """`PiecewiseLinear` in front of whatever the learning rate is: a number, a schedule, AdaFactor's own.

    Args:
        lr_schedule: {step: factor}; steps are updates, whatever accumulates gradients. To lower the rate by a callback
            is refused.
    """

    @public
    def __init__(self, *args: Any, lr_schedule: Mapping[int, float] | Pairs = ((0, 1),), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._factor = PiecewiseLinear(1.0, lr_schedule)

    @property
    def learning_rate(self) -> Any:
        return super().learning_rate * self._factor(self.iterations)

    @learning_rate.setter
    def learning_rate(self, value: Any) -> Any:
        raise TrainingError("The learning rate follows lr_schedule, and cannot be set. Change lr_schedule instead.")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lr_schedule": dict(self._factor.points)}


class ParameterWiseLearningRate(OwnDecay):
    """Multiplies the learning rate of single variables, that of their weight decay included.

    Args:
        paramwise_lr_schedule: {name of variables or layers (`tfloader.selection`): multiplier}; several that fit a
            variable multiply. 0 keeps it exactly as it is (`freeze` also saves its gradient and its slots).
    """

    saved_arguments = ("paramwise_lr_schedule",)

    @public
    def __init__(self, *args: Any, paramwise_lr_schedule: Mapping[str, float] | Pairs = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for pattern, multiplier in dict(paramwise_lr_schedule).items():
            check_number(self, f"paramwise_lr_schedule[{pattern!r}]", multiplier)
        self.paramwise_lr_schedule = {pattern: float(value) for pattern, value in dict(paramwise_lr_schedule).items()}

    def prepare(self, variables: Any) -> None:
        found = matches(self.paramwise_lr_schedule, variables, "paramwise_lr_schedule")
        self._multipliers = tuple(math.prod(map(self.paramwise_lr_schedule.__getitem__, item)) for item in found)
        super().prepare(variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        multiplier = self._multipliers[variable_index(self, variable)]
        super().update_step(gradient, variable, learning_rate if multiplier == 1 else learning_rate * multiplier)


@public
def layer_wise_decay(
    model: keras.Model, decay: float = 0.9, block: str = r"Transformer-(\d+)", embeddings: str = "Embedding"
) -> dict[str, float]:
    """A table for `paramwise_lr_schedule`: the lower a layer, the slower it learns (Clark et al., 2020).

    With n blocks, block i gets decay^(n - i), the embeddings get decay^(n + 1), and all else (heads, last norms) keeps
    1. A token table that is tied to the output is an embedding. Each stack of a T5 counts its own blocks, and the
    embeddings go below the longest.

    Args:
        block: regular expression whose first group is the block's number; what precedes the match names the stack.
        embeddings: regular expression for all below the blocks. What the model has after its last block is a head.

    Returns:
        {"re:^Embedding-Token/": ..., "re:^Transformer-0": ...} for the layers of the model that are not frozen.
    """
    block, embeddings = block.removeprefix(EXPRESSION), embeddings.removeprefix(EXPRESSION)
    if not 0 < decay <= 1:
        raise TrainingError(f"decay is {decay!r}; expected a number above 0 and up to 1.")
    paths = [path(variable) for variable in model.variables]
    blocks = {item: match for item in paths if (match := re.search(block, item))}
    trained = [path(variable) for variable in model.trainable_variables]
    if not blocks.keys() & set(trained):
        raise TrainingError(
            f"No trainable variable of the model has a path that matches block={block!r}; there are {trained[:3]} ..."
        )
    depth: dict[str, int] = {}
    for item, match in blocks.items():
        depth[item[: match.start()]] = max(depth.get(item[: match.start()], 0), int(match[1]) + 1)
    last, table = max(map(paths.index, blocks)), {}
    for item in trained:
        if match := blocks.get(item):
            table[_start(item[: match.end()])] = decay ** (depth[item[: match.start()]] - int(match[1]))
        elif paths.index(item) < last and (match := re.search(embeddings, item)):
            layer = item[: item.find("/", match.end()) + 1] or item
            table[_start(layer)] = decay ** (max(depth.values()) + 1)
    return table


def _start(text: str) -> str:
    """A pattern for all paths that start so; a number that ends the text is matched whole."""
    return f"{EXPRESSION}^{quoted(text)}"
