"""From a model's variables to the tensors of a release, for `save` and `convert`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import ml_dtypes
import numpy as np

from tfloader.checkpoints.base import DTYPES, TensorSpec, aligned_copy, largest_magnitude
from tfloader.checkpoints.writing import Item
from tfloader.config import TransformerConfig
from tfloader.errors import WeightsError
from tfloader.naming.base import Row, counts
from tfloader.naming.release import Release


class Values(Protocol):
    """Variables by the paths of the naming tables, with those that have no such path under any other name.

    `specs`: shapes and dtypes; `read` may give a view or a read-only array; `describe` is what errors call a variable.
    """

    @property
    def specs(self) -> Mapping[str, TensorSpec]: ...
    def read(self, path: str) -> np.ndarray: ...
    def describe(self, path: str) -> str: ...


def assembled(
    values: Values, release: Release, config: TransformerConfig, dtype: str | None = None
) -> tuple[list[Item], list[str]]:
    """All tensors of a release that the variables make, in the order of its table; and what does not fit in there.

    Args:
        dtype: of all tensors; None: each keeps its own.
    """
    made: dict[str, tuple[TensorSpec, Callable[[], np.ndarray]]] = {}
    problems, placed = [], set()
    for row in release.naming.expand(counts(config)):
        there = [path for path in row.ours if path in values.specs]
        placed.update(there)
        if not there:
            continue
        if absent := set(row.ours) - set(there):
            problems.append(f"{row.theirs} in a {release.title} needs {' + '.join(sorted(absent))}, which is not there")
            continue
        specs = [values.specs[path] for path in row.ours]
        dtypes = {spec.dtype for spec in specs}
        if dtype is None and len(dtypes) > 1:
            problems.append(f"{row.theirs} joins {' + '.join(row.ours)} of {' and '.join(sorted(dtypes))}: give dtype=")
            continue
        spec = TensorSpec(tuple(row.op.their_shape(*(spec.shape for spec in specs))), dtype or dtypes.pop())
        made[row.theirs] = spec, _maker(values, row, spec)
    problems += [
        f"{values.describe(path)} has no place in a {release.title}" for path in values.specs if path not in placed
    ]
    for copy in release.naming.duplicates:
        if copy.written and copy.of in made:
            made[copy.theirs] = made[copy.of]
    for constant in release.naming.constants if made else ():
        spec = TensorSpec(constant.shape(config), next(iter(made.values()))[0].dtype)
        made[constant.theirs] = spec, lambda spec=spec, of=constant.values: of(config).astype(spec.numpy_dtype)
    return [(name, spec, make) for name, (spec, make) in made.items()], problems


def _maker(values: Values, row: Row, spec: TensorSpec) -> Callable[[], np.ndarray]:
    def make() -> np.ndarray:
        pieces = [values.read(path) for path in row.ours]
        if len({piece.dtype for piece in pieces}) > 1:
            pieces = [as_dtype(piece, spec.dtype, path) for path, piece in zip(row.ours, pieces, strict=True)]
        return as_dtype(row.op.to_theirs(*pieces), spec.dtype, row.theirs)

    return make


def as_dtype(array: np.ndarray, dtype: str, name: str) -> np.ndarray:
    """The values in another dtype, C-contiguous; the array itself if it is so.

    Raises:
        WeightsError: a value is too large for the dtype.
    """
    if array.dtype == DTYPES[dtype]:
        return array if array.flags.c_contiguous else aligned_copy(array, dtype)
    if (largest := largest_magnitude(array)) > float(ml_dtypes.finfo(DTYPES[dtype]).max):
        raise WeightsError(f"{name} has the value {largest:g}, which {dtype} cannot hold. Choose another dtype.")
    return aligned_copy(array, dtype)
