"""What both writers share: checked inputs, a temporary folder next to the target, and one array at a time."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import numpy as np

from tfloader.checkpoints.base import TensorSpec, show
from tfloader.errors import CheckpointError, listing

Item = tuple[str, TensorSpec, Callable[[], Any]]


def checked_items(target: str, tensors: Iterable[Item]) -> list[Item]:
    """The tensors as a list; names that no container can hold, or that come twice, are an error."""
    items = list(tensors)
    seen: set[str] = set()
    problems = []
    for name, spec, _ in items:
        if not isinstance(name, str) or not name:
            problems.append(f"{name!r}: not a name")
            continue
        if name in seen:
            problems.append(f"{show(name)}: the name comes twice")
        if "\0" in name or any("\ud800" <= c <= "\udfff" for c in name):  # half of a surrogate pair
            problems.append(f"{show(name)}: a name must be valid Unicode without NUL")
        if not isinstance(spec, TensorSpec):
            problems.append(f"{show(name)}: {spec!r} is no TensorSpec")
        seen.add(name)
    if problems:
        raise CheckpointError(f"{target}: cannot be written with these tensors:\n{listing(problems)}")
    return items


def fetch(target: str, item: Item) -> np.ndarray:
    """Asks for one array; C-contiguous, native byte order, exactly as its spec says."""
    name, spec, give = item
    array = np.asarray(give())
    if array.shape != spec.shape or array.dtype.newbyteorder("=") != spec.numpy_dtype:
        raise CheckpointError(
            f"{target}: {show(name)} was announced as {spec.dtype} {spec.shape}, but is "
            f"{array.dtype.name} {array.shape}. Nothing was written."
        )
    # ascontiguousarray would turn a scalar into a vector.
    return np.asarray(array, dtype=spec.numpy_dtype, order="C")


@contextlib.contextmanager
def staging(folder: str, nbytes: int) -> Iterator[str]:
    """A temporary folder in `folder`, removed in any case; an OSError becomes a CheckpointError."""
    if sys.byteorder != "little":
        raise CheckpointError(f"{folder}: writing on a big-endian machine is not supported.")
    try:
        os.makedirs(folder, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < nbytes:
            raise CheckpointError(
                f"{folder}: {nbytes} bytes are to be written, but only {free} are free. "
                "Make room or choose another disk."
            )
        stage = tempfile.mkdtemp(prefix=".tfloader-", suffix=".tmp", dir=folder)
        try:
            yield stage
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: writing failed: {error.strerror or error}. Check permissions and free space. "
            "Files of an earlier save are as they were, unless only renaming failed."
        ) from error


def sync(target: IO[Any] | str) -> None:
    """Makes sure that a file's content, or the names in a folder, are on the disk."""
    if isinstance(target, str):
        if os.name == "nt":  # which cannot open folders
            return
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    else:
        target.flush()
        os.fsync(target.fileno())
