"""The variables that a checkpoint holds, in our terms, without a model: what two naming tables have in common."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec
from tfloader.naming.base import Row


@dataclass(frozen=True)
class Place:
    """Where a variable is: its row of the table, the tensor's name in the file, and which of the row's it is."""

    row: Row
    name: str
    index: int


class Variables(Mapping[str, TensorSpec]):
    """Path -> shape and dtype; `read(path)` gives the values.

    A tensor that holds several variables is kept until all were read, as far as those kept are together no larger
    than the largest tensor.

    Args:
        rows: of the naming table, with their placeholders filled in.
        own: name in the table -> name in the file.

    Attributes:
        problems: what is wrong with shapes.
        axes, keep: variables of which only some tokens are wanted: the axis by path, and the ids.
    """

    def __init__(self, checkpoint: Checkpoint, rows: Sequence[Row], own: Mapping[str, str]) -> None:
        self.checkpoint = checkpoint
        self.places: dict[str, Place] = {}
        self.problems: list[str] = []
        self.axes: Mapping[str, int] = {}
        self.keep: np.ndarray | None = None
        self._specs: dict[str, TensorSpec] = {}
        self._held: OrderedDict[str, tuple[Sequence[np.ndarray], set[str]]] = OrderedDict()
        self._most = max((checkpoint[name].nbytes for name in own.values()), default=0)
        for row in rows:
            if row.theirs in own:
                self._add(row, own[row.theirs])

    def _add(self, row: Row, name: str) -> None:
        spec = self.checkpoint[name]
        try:
            pieces = row.op.to_ours(np.broadcast_to(np.zeros((), spec.numpy_dtype), spec.shape))
            fits = row.op.their_shape(*(piece.shape for piece in pieces)) == spec.shape
        except (ValueError, IndexError):
            fits = False
        if not fits or len(pieces) != len(row.ours):
            self.problems.append(f"{name} has shape {spec.shape}, which cannot be {' + '.join(row.ours)}")
            return
        for index, (path, piece) in enumerate(zip(row.ours, pieces, strict=True)):
            if path in self.places:
                self.problems.append(f"{path} has two tensors, {self.places[path].name} and {name}")
            self.places[path] = Place(row, name, index)
            self._specs[path] = TensorSpec(piece.shape, spec.dtype)

    def stored(self, path: str) -> TensorSpec:
        """Shape and dtype with all tokens."""
        return self._specs[path]

    def __getitem__(self, path: str) -> TensorSpec:
        spec = self._specs[path]
        if path not in self.axes or self.keep is None:
            return spec
        axis = self.axes[path]
        return TensorSpec((*spec.shape[:axis], len(self.keep), *spec.shape[axis + 1 :]), spec.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def read(self, path: str) -> np.ndarray:
        """The values of a variable; an array that may be a view, and may be read-only."""
        place = self.places[path]
        if place.name not in self._held:
            self._make_room(self.checkpoint[place.name].nbytes)
            pieces = place.row.op.to_ours(self.checkpoint.read(place.name))
            self._held[place.name] = pieces, set(place.row.ours)
        pieces, waiting = self._held[place.name]
        waiting.discard(path)
        if not waiting:
            del self._held[place.name]
        piece = pieces[place.index]
        return np.take(piece, self.keep, self.axes[path]) if self.keep is not None and path in self.axes else piece

    def _make_room(self, nbytes: int) -> None:
        while self._held and sum(self.checkpoint[name].nbytes for name in self._held) + nbytes > self._most:
            self._held.popitem(last=False)
