"""A plain dict of arrays, seen as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec, aligned_copy, show
from tfloader.errors import CheckpointError, listing


class MemoryCheckpoint(Checkpoint):
    """`tensors` maps names to arrays or anything that `np.asarray` takes; they are not copied until read."""

    format = "memory"

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        specs: dict[str, TensorSpec] = {}
        self._arrays: dict[str, np.ndarray] = {}
        problems = []
        for name, value in tensors.items():
            if not isinstance(name, str):
                problems.append(f"the key {show(str(name))} is a {type(name).__name__}, not a str")
                continue
            try:
                array = np.asarray(value)
                specs[name] = TensorSpec(array.shape, array.dtype.name)
                self._arrays[name] = array
            except (CheckpointError, TypeError, ValueError, RuntimeError) as error:
                problems.append(f"{show(name)}: {error}")
        path = "<dict of arrays>"
        if problems:
            raise CheckpointError(
                f"{path}: not every entry is a name and an array of numbers. Remove or convert these:\n"
                + listing(problems)
            )
        super().__init__(path, (), specs)

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        return aligned_copy(self._arrays[name], spec.dtype)
