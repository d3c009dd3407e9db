"""A picture of a training: what each epoch brought, a small diagram for each number."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence

from tfloader.errors import TrainingError
from tfloader.files import write_bytes


def draw_curves(history: Mapping[str, Sequence[float]], path: str | os.PathLike[str]) -> None:
    """Writes the values of all epochs, {name: values}, as a PNG, atomically; without matplotlib, nothing."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    if not history:
        return
    figure = Figure(figsize=(4 * len(history), 3), layout="tight")
    for axes, (name, values) in zip(figure.subplots(1, len(history), squeeze=False)[0], history.items(), strict=True):
        epochs = range(1, len(values) + 1)
        axes.plot(epochs, values, marker="o")
        axes.set(title=name, xlabel="epoch", xticks=epochs)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    write_bytes(os.fspath(path), file.getvalue(), TrainingError)
