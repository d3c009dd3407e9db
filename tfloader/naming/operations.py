"""How a tensor of a release becomes variables of ours, and back: operations that invert each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Identity:
    """Their tensor is our variable."""

    def their_shape(self, *ours: Shape) -> Shape:
        return ours[0]

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return [array]

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return arrays[0]


@dataclass(frozen=True)
class Transpose(Identity):
    """Their matrix is our matrix transposed (torch keeps kernels as [out, in])."""

    def their_shape(self, *ours: Shape) -> Shape:
        return ours[0][::-1]

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return [array.T]

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return arrays[0].T


@dataclass(frozen=True)
class Split(Identity):
    """Their tensor holds several of our variables side by side on the last axis, in the row's order."""

    parts: int

    def their_shape(self, *ours: Shape) -> Shape:
        return (*ours[0][:-1], sum(shape[-1] for shape in ours))

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return np.split(array, self.parts, axis=-1)

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return np.concatenate(arrays, axis=-1)


@dataclass(frozen=True)
class LeadingOne(Identity):
    """Their tensor has an extra first axis of size 1 (a convolution of width one) around another operation."""

    inner: Identity = field(default_factory=Identity)

    def their_shape(self, *ours: Shape) -> Shape:
        return (1, *self.inner.their_shape(*ours))

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        return self.inner.to_ours(array[0])

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return self.inner.to_theirs(*arrays)[None]


@dataclass(frozen=True)
class Repeated(Identity):
    """Several of our variables start from the same tensor. It serves loading: saved, each has a tensor of its own."""

    times: int
    inner: Identity = field(default_factory=Identity)

    def their_shape(self, *ours: Shape) -> Shape:
        return self.inner.their_shape(*ours[: len(ours) // self.times])

    def to_ours(self, array: np.ndarray) -> Sequence[np.ndarray]:
        # Copies, because a variable may take an array's memory over.
        return [piece for _ in range(self.times) for piece in self.inner.to_ours(array.copy())]

    def to_theirs(self, *arrays: np.ndarray) -> np.ndarray:
        return self.inner.to_theirs(*arrays[: len(arrays) // self.times])
