"""What every checkpoint is: names, a shape and a dtype for each, and `read(name)`, which gives one array.

The containers (one module each) fill in `specs` when they open a file and implement `_read`.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import ml_dtypes
import numpy as np

from tfloader.errors import CheckpointError
from tfloader.files import show
from tfloader.filesystem import state_of
from tfloader.suggestions import did_you_mean

DTYPES = {
    **{name: np.dtype(name) for name in ("bool", "float16", "float32", "float64")},
    **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64")},
    **{name: np.dtype(name) for name in ("uint8", "uint16", "uint32", "uint64")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
ALIGNMENT = 64  # bytes: a cache line, and what TensorFlow needs to take memory over as it is
_OWN_PAGES = 1024**2  # bytes
_MAX_RANK = 32


@dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one tensor. `dtype` is a numpy-style name, one of `DTYPES`.

    Raises:
        CheckpointError: the dtype is not supported, or no array can have this shape.
    """

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise CheckpointError(f"dtype {show(self.dtype)} is not one of {', '.join(DTYPES)}")
        shape = tuple(self.shape)
        # bool is an int in Python, but not a size.
        if any(isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 0 for n in shape):
            raise CheckpointError(f"shape {shape} has a size that is not a whole number >= 0")
        if len(shape) > _MAX_RANK:
            raise CheckpointError(f"it has {len(shape)} dimensions; at most {_MAX_RANK} are supported")
        shape = tuple(int(n) for n in shape)
        # numpy multiplies the sizes that are not 0, so (0, 2**62) cannot be an array either.
        if math.prod(n or 1 for n in shape) * DTYPES[self.dtype].itemsize >= 2**63:
            raise CheckpointError(f"shape {shape} is larger than any memory")
        object.__setattr__(self, "shape", shape)

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * DTYPES[self.dtype].itemsize

    @property
    def numpy_dtype(self) -> np.dtype:
        return DTYPES[self.dtype]


def aligned_empty(shape: tuple[int, ...], dtype: str | np.dtype) -> np.ndarray:
    """An uninitialised C-contiguous array whose data starts at a multiple of 64 bytes.

    TensorFlow's `from_dlpack` takes such an array without a copy. A large one has pages of its own, which go back
    to the system with it: malloc would keep holes of what the threads of a load have freed.
    """
    dtype = DTYPES[dtype] if isinstance(dtype, str) else np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes >= _OWN_PAGES and hasattr(mmap, "MAP_ANONYMOUS"):  # Windows has no private anonymous map
        try:
            pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, OverflowError) as error:
            raise MemoryError(f"no memory for {nbytes} bytes ({error})") from error
        return np.ndarray(shape, dtype, buffer=pages)
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    return np.ndarray(shape, dtype, buffer=raw, offset=-raw.ctypes.data % ALIGNMENT)


def aligned_copy(array: np.ndarray, dtype: str) -> np.ndarray:
    """A C-contiguous copy in another dtype, on memory as `aligned_empty` gives it."""
    copy = aligned_empty(array.shape, dtype)
    if array.ndim != 2 or array.flags.c_contiguous or not array.flags.f_contiguous:
        np.copyto(copy, array, casting="unsafe")
        return copy
    # A transposed matrix, a few rows at a time: they fill whole cache lines of the copy.
    rows = ALIGNMENT // copy.itemsize
    for start in range(0, array.shape[1], rows):
        block = array.T[start : start + rows].astype(copy.dtype, copy=False)
        np.copyto(copy[:, start : start + rows], block.T)
    return copy


def largest_magnitude(array: np.ndarray) -> float:
    """Of the values that are numbers; 0 where there is none."""
    return float(max(np.fmax.reduce(array, axis=None), -np.fmin.reduce(array, axis=None))) if array.size else 0.0


class Watch:
    """A file as it was when it was opened, by its handle or, where it is opened for each read, by its path."""

    def __init__(self, path: str, handle: int | None = None) -> None:
        self.path, self._place = path, path if handle is None else handle
        self._state = state_of(self._place)

    def changed(self) -> bool:
        """Whether other bytes may be read from it by now."""
        return state_of(self._place) != self._state

    def replaced(self) -> bool:
        """Whether its path leads to another file, or to none."""
        return state_of(self.path) != self._state


class Checkpoint(Mapping[str, TensorSpec]):
    """A read-only mapping from tensor names to `TensorSpec`, with `read(name)` for the data.

    Attributes:
        format: "tensorflow", "safetensors", "hdf5", "torch" or "memory".
        path: the file, prefix or folder that errors name.
        watched: the files that hold the tensors, as they were when they were opened.
        skipped: entries of the file that are no tensors of numbers, as {name: reason}.
    """

    format = ""
    _file: Any = None  # what `close` closes

    def __init__(
        self, path: str, watched: tuple[Watch, ...], specs: dict[str, TensorSpec], skipped: dict[str, str] | None = None
    ) -> None:
        self.path, self.watched, self.skipped = path, watched, skipped or {}
        self._specs, self._closed, self._lock = specs, False, threading.Lock()

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files that hold the tensors."""
        return tuple(watch.path for watch in self.watched)

    def is_in_place(self) -> bool:
        """Whether its paths still lead to the files that were opened."""
        return not any(watch.replaced() for watch in self.watched)

    def check_in_place(self) -> None:
        """Refuses what was read beside its files as a part of it, if others have taken their place meanwhile."""
        if not self.is_in_place():
            raise CheckpointError(f"{self.path}: it was replaced since it was opened. Open it again.")

    def __getitem__(self, name: str) -> TensorSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __repr__(self) -> str:
        return f"<{self.format} checkpoint {self.path!r}: {len(self)} tensors>"

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor; may be called from several threads.

        Returns:
            A fresh C-contiguous array of the spec's shape and dtype (native byte order; bfloat16 as
            `ml_dtypes.bfloat16`) that nothing else refers to. Where it is a view of a TensorFlow
            tensor it is flagged read-only.

        Raises:
            CheckpointError: the name is not in the checkpoint, or its data cannot be read.
        """
        with self._reading(name) as spec:
            return self._read(name, spec)

    def close(self) -> None:
        """Closes the files. Reading afterwards is an error; closing twice is not."""
        self._closed = True
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        raise NotImplementedError

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[TensorSpec]:
        """Around each read: the name is known, and the files are those that were opened, unchanged."""
        self._check_readable(name)
        try:
            yield self._specs[name]
        finally:
            if changed := [watch.path for watch in self.watched if watch.changed()]:
                raise CheckpointError(f"{changed[0]}: the file changed since it was opened. Open it again.")

    def _fill(self, array: np.ndarray, at: int) -> None:
        """Fills an array with the bytes of `_file` from a position on; several threads may do so."""
        left = array.reshape(-1).view(np.uint8).data
        while left:
            if hasattr(os, "preadv"):
                count = os.preadv(self._file.fileno(), [left], at)
            else:  # Windows has no positioned read
                with self._lock:
                    self._file.seek(at)
                    count = self._file.readinto(left)
            if count == 0:
                raise CheckpointError(f"{self.path}: the file ends before its data do. Download it again.")
            left, at = left[count:], at + count

    def _check_readable(self, name: str) -> None:
        if self._closed:
            raise CheckpointError(f"{self.path}: the checkpoint was closed. Open it again to read from it.")
        if name in self._specs:
            return
        if name in self.skipped:
            raise CheckpointError(f"{self.path}: {show(name)} cannot be read: {self.skipped[name]}.")
        hint = did_you_mean(str(name), self._specs) or "."
        raise CheckpointError(f"{self.path}: there is no tensor {show(str(name))} among its {len(self)} tensors{hint}")


def folder_of(path: str | os.PathLike[str]) -> str:
    """The folder that a checkpoint's path means: itself, or the one that its files are in."""
    path = os.fspath(path)
    return path if os.path.isdir(path) else os.path.dirname(path) or "."
