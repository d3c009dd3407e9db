"""PyTorch `.bin` and `.pt` files of tensors, read without PyTorch.

A pickle says what there is; pickles.py reads it as data and runs nothing. The numbers lie beside it: as members of a
zip archive, each with a CRC-32, or, before PyTorch 1.6, one after another behind it.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfloader.checkpoints.base import DTYPES, Checkpoint, TensorSpec, Watch, aligned_copy, aligned_empty, show
from tfloader.checkpoints.files import expect, reading
from tfloader.checkpoints.pickles import MAX_PICKLE_BYTES, Call, Name, PickleError, Stored, read_pickle
from tfloader.errors import CheckpointError, listing
from tfloader.files import Bounded
from tfloader.filesystem import open_file

_MAGIC = 0x1950A86A20F9469CFC6C  # of the format before 1.6
_DTYPES = {
    "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Bool": "bool",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Untyped": "uint8",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}  # fmt: skip
# What makes another tensor of a tensor that is stored plainly -> that tensor.
_WRAPPERS: dict[str, Callable[..., Call]] = {
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
    "torch._tensor._rebuild_from_type_v2": lambda function, _, arguments, __: Call(function, arguments, {}),
}
# Function that makes a tensor of a storage -> how many arguments it takes.
_TENSORS = {
    "torch._utils._rebuild_tensor": (4,),
    "torch._utils._rebuild_tensor_v2": (6, 7),
    "torch._utils._rebuild_tensor_v3": (7, 8),
}
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError)  # what a strange description leads to
_PIECE = 2**20  # bytes
_MAX_DEPTH = 10  # of dicts in dicts


@dataclass(frozen=True)
class _Storage:
    """Where the bytes of one tensor, or of several, lie. A CRC-32 of 0 was not recorded."""

    start: int
    nbytes: int
    crc: int = 0


@dataclass(frozen=True)
class _Tensor:
    """A tensor as a part of a storage; `offset` and `strides` count elements."""

    spec: TensorSpec
    storage: str
    offset: int
    strides: tuple[int, ...]

    @property
    def extent(self) -> int:
        """The elements from the first to the last."""
        steps = sum((n - 1) * stride for n, stride in zip(self.spec.shape, self.strides, strict=True))
        return 1 + steps if self.spec.size else 0


class TorchCheckpoint(Checkpoint):
    """One file of a dict from names to tensors, or to dicts of them; entries that are no tensors are `skipped`."""

    format = "torch"

    def __init__(self, path: str) -> None:
        kind = expect(path, "a PyTorch file of weights", "torch", "torch-legacy")
        with reading(path), contextlib.ExitStack() as stack:
            self._file = stack.enter_context(open_file(path, buffering=0))
            watch = Watch(path, self._file.fileno())
            try:
                content, self._storages = (_zipped if kind == "torch" else _in_a_row)(self._file)
            except (*_DAMAGE, zipfile.BadZipFile, NotImplementedError) as error:
                raise CheckpointError(
                    f"{path}: this is no intact PyTorch file of tensors alone: {error}. Download it again, or get the "
                    "weights as safetensors."
                ) from error
            self._tensors, skipped = _tensors(path, content, self._storages)
            stack.pop_all()
        self._intact: set[str] = set()  # storages whose checksums were compared
        super().__init__(path, (watch,), {name: tensor.spec for name, tensor in self._tensors.items()}, skipped)

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        tensor = self._tensors[name]
        data = aligned_empty((tensor.extent,), spec.dtype)
        self._fill(data, self._storages[tensor.storage].start + tensor.offset * data.itemsize)
        self._compare_checksum(name, tensor.storage, data)
        strides = [stride * data.itemsize for stride in tensor.strides]
        array = np.lib.stride_tricks.as_strided(data, spec.shape, strides)
        return array if array.flags.c_contiguous else aligned_copy(array, spec.dtype)

    def _compare_checksum(self, name: str, key: str, data: np.ndarray) -> None:
        storage = self._storages[key]
        whole = data.nbytes == storage.nbytes
        if not storage.crc or (key in self._intact and not whole):
            return
        crc = 0
        for piece in [data] if whole else self._pieces(storage):
            crc = zlib.crc32(piece.view(np.uint8).data, crc)
        if crc != storage.crc:
            raise CheckpointError(
                f"{self.path}: reading {show(name)} failed: the data's checksum does not match, so the file is "
                "damaged. Download it again."
            )
        self._intact.add(key)

    def _pieces(self, storage: _Storage) -> Iterator[np.ndarray]:
        for start in range(0, storage.nbytes, _PIECE):
            piece = np.empty(min(_PIECE, storage.nbytes - start), np.uint8)
            self._fill(piece, storage.start + start)
            yield piece


def _zipped(file: Any) -> tuple[Any, dict[str, _Storage]]:
    """The content of the pickle in a zip archive, and the storages beside it."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(Bounded(file)) as archive:
        infos = archive.infolist()
    odd = [show(i.filename) for i in infos if i.compress_type or i.file_size != i.compress_size or i.flag_bits & 1]
    if odd:
        raise PickleError(f"its members are compressed or encrypted, which PyTorch does not do:\n{listing(odd)}\n")
    members: dict[str, _Storage] = {}
    for info in infos:
        file.seek(info.header_offset)
        header = file.read(30)  # ends in the lengths of name and extra field
        name = file.read(int.from_bytes(header[26:28], "little"))
        start = file.tell() + int.from_bytes(header[28:], "little")
        if not header.startswith(b"PK\3\4") or name.decode() != info.filename:
            raise PickleError(f"its member {show(info.filename)} is not where it is said to be")
        if start + info.file_size > size or info.filename in members:
            raise PickleError(f"its member {show(info.filename)} reaches over the end, or is there twice")
        members[info.filename] = _Storage(start, info.file_size, info.CRC)

    def whole(name: str) -> bytes:
        if members[name].nbytes > MAX_PICKLE_BYTES:
            raise PickleError(f"{members[name].nbytes} bytes are too much for a description of tensors")
        file.seek(members[name].start)
        data = file.read(members[name].nbytes)
        if members[name].crc not in (0, zlib.crc32(data)):
            raise PickleError(f"the checksum of {show(name)} does not match")
        return data

    (pickle,) = (name for name in members if name == "data.pkl" or name.endswith("/data.pkl"))
    root = pickle.removesuffix("data.pkl")
    if f"{root}byteorder" in members and whole(f"{root}byteorder") != b"little":
        raise PickleError("it was written on a big-endian machine, which is not supported")
    data = f"{root}data/"
    storages = {name.removeprefix(data): found for name, found in members.items() if name.startswith(data)}
    content, stored = read_pickle(io.BytesIO(whole(pickle)))
    for item in stored:
        _described(item)
    return content, storages


def _in_a_row(file: Any) -> tuple[Any, dict[str, _Storage]]:
    """The same of the format before PyTorch 1.6: five pickles, then each storage behind its number of elements."""
    size = os.fstat(file.fileno()).st_size
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    (magic, _), (version, _), (system, _), (content, stored), (keys, _) = (read_pickle(head) for _ in range(5))
    if magic != _MAGIC or version != 1001 or system["little_endian"] is not True:
        raise PickleError("its first bytes are not those of a PyTorch file of a little-endian machine")
    dtypes = {key: dtype for key, dtype, _ in map(_described, stored)}
    at, storages = head.tell(), {}
    for key in keys:
        file.seek(at)
        nbytes = int.from_bytes(file.read(8), "little") * _itemsize(dtypes[key])
        storages[key] = _Storage(at + 8, nbytes)
        at += 8 + nbytes
        if at > size:
            raise PickleError("it is cut short")
    return content, storages


def _described(stored: Stored) -> tuple[str, str, int]:
    """Key, dtype and number of elements that a storage's id states."""
    kind, name, key, _, count, *view = stored.id
    known = kind == "storage" and type(name) is Name and name.endswith("Storage")
    if not known or type(key) is not str or type(count) is not int or any(view):
        raise PickleError("it has a storage of an unknown kind")
    numbers = name.rpartition(".")[2].removesuffix("Storage")
    return key, _DTYPES.get(numbers, numbers), count


def _itemsize(dtype: str) -> int:
    return np.dtype(DTYPES.get(dtype, dtype)).itemsize


def _tensors(path: str, content: Any, storages: dict[str, _Storage]) -> tuple[dict[str, _Tensor], dict[str, str]]:
    """The tensors of a dict, and what else it holds as {name: reason}."""
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {_kind(content)}, expected a dict from names to tensors. Save model.state_dict() instead."
        )
    tensors: dict[str, _Tensor] = {}
    skipped: dict[str, str] = {}
    problems = []
    for name, value in _flat(content, set()):
        if _kind(value) != "Tensor":
            skipped[name] = f"it is a {_kind(value)}, not a tensor"
            continue
        if name in tensors:
            problems.append(f"{show(name)}: there are two of this name")
        try:
            tensors[name] = _located(value, storages)
        except CheckpointError as error:
            problems.append(f"{show(name)}: {error}")
        except _DAMAGE:
            problems.append(f"{show(name)}: it is not described as PyTorch does")
    if problems:
        raise CheckpointError(f"{path}: tensors that are not supported:\n{listing(problems)}")
    if not tensors and skipped:
        raise CheckpointError(
            f"{path}: there are no tensors in it, but these. Save model.state_dict() instead.\n"
            + listing(f"{show(name)}: {reason}" for name, reason in skipped.items())
        )
    return tensors, skipped


def _flat(content: dict[Any, Any], seen: set[int], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Names and values. Those of a dict in it, as a training checkpoint has, follow its name and a point."""
    seen.add(id(content))
    for key, value in content.items():
        name = f"{prefix}{key}" if isinstance(key, str | int) else f"{prefix}({type(key).__name__})"
        if isinstance(value, dict) and value and id(value) not in seen and depth < _MAX_DEPTH:
            yield from _flat(value, seen, f"{name}.", depth + 1)
        else:
            yield name, value


def _kind(value: Any) -> str:
    if not isinstance(value, Call):
        return type(value).__name__
    return "Tensor" if "._rebuild_" in value.function else value.function.rpartition(".")[2]


def _located(value: Call, storages: dict[str, _Storage]) -> _Tensor:
    """Which part of which storage a tensor is; one that is not stored plainly is a CheckpointError."""
    while value.function in _WRAPPERS:
        value = _WRAPPERS[value.function](*value.arguments)
    if value.function not in _TENSORS:
        raise CheckpointError(f"it is sparse, quantised or without data ({value.function})")
    if len(value.arguments) not in _TENSORS[value.function]:
        raise PickleError("its function takes other arguments")
    stored, offset, shape, strides, *more = value.arguments
    key, dtype, count = _described(stored)
    if value.function.endswith("_v3"):
        dtype = str(more[2]).removeprefix("torch.")
        count //= _itemsize(dtype)
    spec = TensorSpec(shape, dtype)
    if len(strides) != len(shape) or not all(type(n) is int and n >= 0 for n in (offset, *strides)):
        raise PickleError("its offset or strides are impossible")
    if any(flags for flags in more[2:] if isinstance(flags, dict)):
        raise CheckpointError("its numbers are stored with their signs turned")
    # A stride that is never taken may be anything.
    taken = (n > 1 and spec.size > 0 for n in shape)
    tensor = _Tensor(spec, key, offset, tuple(s if t else 0 for t, s in zip(taken, strides, strict=True)))
    if max(spec.size, offset + tensor.extent) > count:
        raise CheckpointError(f"{spec.shape} is more than its storage holds")
    if storages[key].nbytes < count * _itemsize(dtype):
        raise CheckpointError("its data are cut short")
    return tensor
