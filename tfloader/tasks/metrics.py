"""Metrics of classification and regression, as scikit-learn and SciPy define them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Confusion(NamedTuple):
    """How often items of one label were given another.

    Attributes:
        labels: names of rows and columns.
        counts: int [labels, labels]; rows are what is right, columns what was answered.
    """

    labels: Sequence[str]
    counts: np.ndarray

    def __str__(self) -> str:
        width = max(map(len, (*self.labels, str(self.counts.max(initial=0)))), default=1) + 2
        names = max(map(len, self.labels), default=0)
        lines = [" " * names + "".join(label.rjust(width) for label in self.labels)]
        lines += [
            label.ljust(names) + "".join(str(count).rjust(width) for count in row)
            for label, row in zip(self.labels, self.counts.tolist(), strict=True)
        ]
        return "\n".join(lines)


def f1_scores(right: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """(macro, micro) F1 of boolean arrays [items, labels].

    Macro is the mean over the labels that occur in either; a label that only one of them has counts as 0.
    """
    both, either = (right & found).sum(axis=0), right.sum(axis=0) + found.sum(axis=0)
    occurring = either > 0
    macro = float(np.mean(2 * both[occurring] / either[occurring])) if occurring.any() else 0.0
    return macro, float(2 * both.sum() / either.sum()) if either.any() else 0.0


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of two series; 0 where one of them is constant."""
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / norm) if norm else 0.0


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Correlation of the ranks of two series; equal values have the mean of their ranks."""
    return pearson(_ranks(x), _ranks(y))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[places]
