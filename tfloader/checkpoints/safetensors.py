"""Safetensors files: 8 bytes of header length, a JSON header of names, dtypes, shapes and offsets, then data.

The safetensors library validates the file. The header is parsed here as well, because the library accepts a
key that comes twice, and so that data go from the file straight into aligned memory, without a memory map.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec, aligned_empty, show
from tfloader.checkpoints.files import MAX_JSON_BYTES, expect, unreadable
from tfloader.errors import CheckpointError, listing
from tfloader.files import parse_json

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
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            header, data_start = _read_header(path, self._file)
            self.metadata: dict[str, str] = header.pop("__metadata__", None) or {}
            _validate(path)
            specs, self._starts = _entries(path, header, data_start)
        except OSError as error:
            self._file.close()
            raise unreadable(path, error) from error
        except CheckpointError:
            self._file.close()
            raise
        self._lock = threading.Lock()
        super().__init__(path, (path,), specs)

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        result = aligned_empty(spec.shape, spec.dtype)
        left = result.reshape(-1).view(np.uint8).data
        at = self._starts[name]
        try:
            while left:
                count = self._read_at(left, at)
                if count == 0:
                    raise CheckpointError(f"{self.path}: the file became shorter while it was open. Open it again.")
                left, at = left[count:], at + count
        except (OSError, ValueError) as error:  # ValueError: closed by another thread
            raise CheckpointError(f"{self.path}: reading {show(name)} failed: {error}.") from error
        return result

    def _read_at(self, buffer: memoryview, at: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], at)
        with self._lock:  # Windows has no positioned read
            self._file.seek(at)
            return self._file.readinto(buffer)


def _read_header(path: str, file: Any) -> tuple[dict[str, Any], int]:
    """The JSON header with every dtype in it supported, and the file offset where data start."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_JSON_BYTES):
        raise CheckpointError(
            f"{path}: not an intact safetensors file: its first 8 bytes announce a header of {length} bytes, "
            f"but the file has {size}. {_AGAIN}"
        )
    header = parse_json(file.read(length), f"{path}: the safetensors header", CheckpointError)
    unknown = [
        f"{show(name)}: {show(str(entry.get('dtype')))}"
        for name, entry in header.items()
        if name != "__metadata__" and isinstance(entry, dict) and str(entry.get("dtype")) not in DTYPES
    ]
    if unknown:
        raise CheckpointError(
            f"{path}: these tensors have dtypes that are not supported (supported: {', '.join(DTYPES)}). "
            f"Look for a copy of the model that is not quantised:\n{listing(unknown)}"
        )
    return header, 8 + length


def _validate(path: str) -> None:
    """Lets the library check shapes, offsets, gaps, overlaps and the file's size."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: not a valid safetensors file: {str(error)[:500]}. {_AGAIN}") from error


def _entries(path: str, header: dict[str, Any], data_start: int) -> tuple[dict[str, TensorSpec], dict[str, int]]:
    """The specs and the file offset of each tensor, from a header that the library accepted."""
    specs, starts, problems = {}, {}, []
    for name, entry in header.items():
        try:
            spec = TensorSpec(tuple(entry["shape"]), DTYPES[entry["dtype"]])
            begin, end = entry["data_offsets"]
        except CheckpointError as error:
            problems.append(f"{show(name)}: {error}")
            continue
        if end - begin != spec.nbytes:
            problems.append(f"{show(name)}: {spec.nbytes} bytes expected, {end - begin} stored")
        specs[name], starts[name] = spec, data_start + begin
    if problems:
        raise CheckpointError(f"{path}: tensors that cannot be read. {_AGAIN}\n{listing(problems)}")
    return specs, starts
