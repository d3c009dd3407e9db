"""Stored tensors that no variable holds, because what they must hold is known; files are compared with that."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tfloader.config import TransformerConfig

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A stored tensor that follows from the config: it must hold `values(config)`, and our writer stores it too.

    `shape(config)` is known without the values, so that a hostile config cannot ask for more memory than its file.
    """

    theirs: str
    shape: Callable[[TransformerConfig], Shape]
    values: Callable[[TransformerConfig], np.ndarray]


@dataclass(frozen=True)
class Buffer:
    """Stored tensors that no config can change: older files have them, and the original computed with what they hold.

    `pattern` finds their names; `values(shape)` is what they must hold in whatever shape a file has them.
    """

    pattern: str
    values: Callable[[Shape], np.ndarray]

    def at(self, name: str, shape: Shape) -> Constant:
        return Constant(name, lambda config: shape, lambda config: self.values(shape))


def positions(pattern: str) -> Buffer:
    """0, 1, 2 ...: which row of the table of positions each token gets."""
    return Buffer(pattern, lambda shape: np.arange(math.prod(shape), dtype="float32").reshape(shape))


def causal_masks(pattern: str) -> Buffer:
    """[..., query, key]: one where a query may look, at itself and at what precedes it."""
    return Buffer(pattern, lambda shape: np.resize(np.tri(*(1, 1, *shape)[-2:], dtype="bool"), shape))
