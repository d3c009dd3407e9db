"""What both writers share: checked inputs, groups of tensors of limited size, and one array at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfloader.checkpoints.base import TensorSpec, show
from tfloader.errors import CheckpointError, listing

Item = tuple[str, TensorSpec, Callable[[], Any]]


def checked_items(target: str, tensors: Iterable[Item]) -> list[Item]:
    """The tensors as a list; names that no container can hold, or that come twice, are an error."""
    if sys.byteorder != "little":
        raise CheckpointError(f"{target}: writing on a big-endian machine is not supported.")
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


def groups(items: Iterable[Item], max_bytes: int) -> list[list[Item]]:
    """The items in their order, in groups of at most so many bytes; a larger one has a group of its own."""
    result: list[list[Item]] = [[]]
    filled = 0
    for item in items:
        nbytes = item[1].nbytes
        if result[-1] and filled + nbytes > max_bytes:
            result.append([])
            filled = 0
        result[-1].append(item)
        filled += nbytes
    return result


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
