"""The variables that a checkpoint holds, by the paths of the naming tables."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec
from tfloader.naming.fit import Fit


class Variables(Mapping[str, TensorSpec]):
    """Path -> shape and dtype; `read(path)` gives the values.

    A tensor that holds several variables is kept until all were read, as far as those kept are together no larger
    than the largest tensor.

    Attributes:
        cut, axes: the cut of the vocabulary, if there is one, and by path the axis on which it is applied.
    """

    def __init__(self, checkpoint: Checkpoint, fit: Fit) -> None:
        self.checkpoint = checkpoint
        self.axes: Mapping[str, int] = {}
        self.cut: Any = None
        # Path -> its row and tensor, and which of the row's variables it is.
        self._sources = {path: (source, i) for source in fit.sources for i, path in enumerate(source.row.ours)}
        self._shapes = fit.variables or {}
        self._held: OrderedDict[str, tuple[Sequence[np.ndarray], set[str]]] = OrderedDict()
        self._most = max((checkpoint[source.name].nbytes for source in fit.sources), default=0)

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return self

    def describe(self, path: str) -> str:
        return f"{self._sources[path][0].name} ({path})"

    def __getitem__(self, path: str) -> TensorSpec:
        source, _ = self._sources[path]
        shape = list(self._shapes[path])
        if path in self.axes:
            shape[self.axes[path]] = self.cut.size
        return TensorSpec(tuple(shape), self.checkpoint[source.name].dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def read(self, path: str) -> np.ndarray:
        """The values of a variable; an array that may be a view, and may be read-only."""
        source, index = self._sources[path]
        if source.name not in self._held:
            self._make_room(self.checkpoint[source.name].nbytes)
            pieces = source.row.op.to_ours(self.checkpoint.read(source.name))
            self._held[source.name] = pieces, set(source.row.ours)
        pieces, waiting = self._held[source.name]
        waiting.discard(path)
        if not waiting:
            del self._held[source.name]
        piece = pieces[index]
        return self.cut.apply(piece, self.axes[path]) if path in self.axes else piece

    def _make_room(self, nbytes: int) -> None:
        while self._held and sum(self.checkpoint[name].nbytes for name in self._held) + nbytes > self._most:
            self._held.popitem(last=False)
