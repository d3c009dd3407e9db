"""Safetensors files: 8 bytes of header length, a JSON header of names, dtypes, shapes and offsets, then data.

The header is judged here, as strictly as by the safetensors library, which besides accepts a key that comes twice.
Data go from the open file straight into aligned memory, without a memory map.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec, Watch, aligned_empty, show
from tfloader.checkpoints.files import MAX_JSON_BYTES, expect, reading
from tfloader.errors import CheckpointError, listing
from tfloader.files import parse_json
from tfloader.filesystem import open_file

DTYPES = {
    "BOOL": "bool", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
}  # fmt: skip
_AGAIN = "It may be cut short or damaged; download it again."


class SafetensorsCheckpoint(Checkpoint):
    """One `.safetensors` file; `metadata` is its `__metadata__`, {str: str}."""

    format = "safetensors"

    def __init__(self, path: str) -> None:
        expect(path, "a safetensors file", "safetensors")
        with reading(path), contextlib.ExitStack() as stack:
            self._file = stack.enter_context(open_file(path, buffering=0))
            watch = Watch(path, self._file.fileno())
            header, self._data_start = _read_header(path, self._file)
            self.metadata = _metadata(path, header.pop("__metadata__", None))
            nbytes = os.fstat(self._file.fileno()).st_size - self._data_start
            specs, self._starts = _entries(path, header, nbytes)
            stack.pop_all()
        super().__init__(path, (watch,), specs)

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        result = aligned_empty(spec.shape, spec.dtype)
        self._fill(result, self._data_start + self._starts[name])
        return result


def _read_header(path: str, file: Any) -> tuple[dict[str, Any], int]:
    """The JSON header, and the file offset where data start."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_JSON_BYTES):
        raise CheckpointError(
            f"{path}: not an intact safetensors file: its first 8 bytes announce a header of {length} bytes, but the "
            f"file has {size}, and at most {MAX_JSON_BYTES} are read. {_AGAIN}"
        )
    header = file.read(length)
    if not header.startswith(b"{"):
        raise CheckpointError(f"{path}: not a valid safetensors file: its header does not begin with {{. {_AGAIN}")
    return parse_json(header, f"{path}: the safetensors header", CheckpointError), 8 + length


def _metadata(path: str, found: Any) -> dict[str, str]:
    if found is not None and not (isinstance(found, dict) and all(isinstance(text, str) for text in found.values())):
        raise CheckpointError(f"{path}: not a valid safetensors file: its __metadata__ are not strings. {_AGAIN}")
    return found or {}


def _entries(path: str, header: dict[str, Any], nbytes: int) -> tuple[dict[str, TensorSpec], dict[str, int]]:
    """The specs, and where in the data each tensor begins; together they must fill the data, without overlaps."""
    unknown = [
        f"{show(name)}: {show(str(entry.get('dtype')))}"
        for name, entry in header.items()
        if isinstance(entry, dict) and str(entry.get("dtype")) not in DTYPES
    ]
    if unknown:
        raise CheckpointError(
            f"{path}: these tensors have dtypes that are not supported (supported: {', '.join(DTYPES)}). "
            f"Look for a copy of the model that is not quantised:\n{listing(unknown)}"
        )
    specs, starts, problems = {}, {}, []
    for name, entry in header.items():
        try:
            name.encode()  # fails for half of a surrogate pair
            spec = TensorSpec((*entry["shape"],), DTYPES[entry["dtype"]])
            begin, end = entry["data_offsets"]
            if not isinstance(entry["shape"], list) or not type(begin) is type(end) is int:
                raise CheckpointError("its shape or data_offsets are not lists of whole numbers")
            if end - begin != spec.nbytes:
                problems.append(f"{show(name)}: {spec.nbytes} bytes expected, stored from {begin!r} to {end!r}")
            specs[name], starts[name] = spec, begin
        except CheckpointError as error:
            problems.append(f"{show(name)}: {error}")
        except (KeyError, TypeError, ValueError):
            problems.append(f"{show(name)}: expected a name with a dtype, a shape and two data_offsets")
    end = 0
    if not problems:
        for name in sorted(specs, key=lambda name: (starts[name], specs[name].nbytes)):
            if starts[name] != end:
                problems.append(f"{show(name)}: begins at {starts[name]}, but the tensors before it end at {end}")
            end = starts[name] + specs[name].nbytes
        if end != nbytes:
            problems.append(f"its tensors have {end} bytes, but {nbytes} are stored")
    if problems:
        raise CheckpointError(f"{path}: not a valid safetensors file. {_AGAIN}\n{listing(problems)}")
    return specs, starts
