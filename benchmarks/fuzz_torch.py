"""PyTorch's files that `fuzz.py` damages: bytes, the pickle's instructions, headers of the archive around it."""

from __future__ import annotations

import collections
import functools
import io
import math
import os
import pickle
import pickletools
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from fuzz import NUMBERS, ROOT, Target
from fuzz_weights import Arrays, described, tensors

TORCH = ROOT / "tests" / "fixtures" / "torch"
CONSTANTS = [bytes([code]) for code in b"NI\x88\x89)}]0(1tR\x81bu.esaQ\x85\x86\x87"]
FIELDS = {b"PK\1\2": 46, b"PK\3\4": 30, b"PK\5\6": 22}  # a header's first bytes -> its length
DTYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": ml_dtypes.bfloat16, "Bool": "?", "Char": "i1"}
DTYPES |= {"Byte": "u1", "Short": "<i2", "Int": "<i4", "Long": "<i8", "Untyped": "u1"}


# ---- damage


def instructions(data: bytes) -> list[bytes]:
    """The instructions of one pickle after another, each as its bytes, and at last what follows the pickles."""
    file, starts = io.BytesIO(data), [0]
    while True:
        try:
            found = [place for _, _, place in pickletools.genops(file)]
        except Exception:
            break
        starts += [*found[1:], file.tell()]
    return [data[start:end] for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]


def whole_number(draw: random.Random, old: bytes) -> bytes:
    code, known = old[:1], int.from_bytes(old[1:], "little")
    number = draw.choice((*NUMBERS, known + 1, known - 1, known * 2, -known))
    if code == b"K" and 0 <= number < 256:
        return code + bytes([number])
    size = number.bit_length() // 8 + 1
    return b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)


def damaged_pickle(draw: random.Random, data: bytes) -> bytes:
    """One to three instructions with other numbers or texts, dropped, repeated or exchanged."""
    items = [item for item in instructions(data) if item[:1] != b"\x95"]  # frames, which say how long they are
    last = len(items) - 1  # what follows
    for _ in range(draw.choice((1, 1, 2, 3))):
        numbers = [place for place, item in enumerate(items[:last]) if item[:1] in (b"K", b"M", b"J")]
        texts = [place for place, item in enumerate(items[:last]) if item[:1] in (b"X", b"\x8c", b"c")]
        what, place, other = draw.randrange(8), draw.randrange(last), draw.randrange(last)
        if what <= 2 and numbers:
            place = draw.choice(numbers)
            items[place] = whole_number(draw, items[place])
        elif what == 3 and texts:
            items[draw.choice(texts)] = items[draw.choice(texts)]
        elif what == 4:
            items[place] = draw.choice(CONSTANTS)
        elif what == 5:
            items[place], items[other] = items[other], items[place]
        elif what == 6:
            items[place] = b""
        else:
            items[place] += items[other]
    return b"".join(items)


def damaged_member(draw: random.Random, content: bytes) -> bytes:
    """The archive with a damaged pickle, under checksums that are right."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for item in old.infolist():
            data = old.read(item)
            new.writestr(item.filename, damaged_pickle(draw, data) if item.filename.endswith("data.pkl") else data)
    return made.getvalue()


def zip_header(draw: random.Random, content: bytes) -> bytes:
    """A field of a header replaced, by the same one of another header or by a number."""
    data = bytearray(content)
    start = draw.choice(list(FIELDS))
    places = [match.start() for match in re.finditer(re.escape(start), content)]
    place, field, size = draw.choice(places), draw.randrange(4, FIELDS[start], 2), draw.choice((2, 4))
    number = (draw.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")
    other = draw.choice(places) + field
    data[place + field : place + field + size] = draw.choice((number, content[other : other + size]))
    return bytes(data)


def damaged_archive(draw: random.Random, content: bytes) -> bytes:
    return draw.choice((damaged_member, zip_header))(draw, content)


# ---- another reader


@dataclass(eq=False)
class Tensor:
    """An array that can be a key, as PyTorch's tensors can."""

    array: Any


class Plain(pickle.Unpickler):
    """Python's own machine, with nothing but what makes a tensor; data are found by `storage(key, dtype, count)`."""

    def __init__(self, file: Any, storage: Callable[[str, np.dtype, int], np.ndarray]):
        super().__init__(file)
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        return FUNCTIONS.get(f"{module}.{name}") or Unknown(name)

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, count, *_ = pid
        if kind != "storage" or not dtype.name.endswith("Storage"):
            raise ValueError
        return self.storage(key, np.dtype(DTYPES[dtype.name.removesuffix("Storage")]), count)


@dataclass(frozen=True)
class Unknown:
    """What is named and makes no tensor, called or not."""

    name: str

    def __call__(self, *arguments: Any) -> Unknown:
        return self

    def __setstate__(self, state: Any) -> None:
        pass


def rebuilt(*arguments: Any, dtype: Any = None) -> Tensor:
    """A tensor as a part of a storage. One that is described wrongly is an error where it is used, and only there."""
    try:
        storage, offset, shape, strides, *_ = arguments
        if dtype:
            storage = storage.view(dtype.name)
        size = math.prod(shape)
        end = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        if size and not 0 <= offset <= end < len(storage):
            return Tensor(None)
        steps = [stride * storage.itemsize if n > 1 and size else 0 for n, stride in zip(shape, strides, strict=True)]
        return Tensor(np.lib.stride_tricks.as_strided(storage[offset:], shape, steps))
    except (TypeError, ValueError, AttributeError):
        return Tensor(None)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": rebuilt,
    "torch._utils._rebuild_tensor_v2": rebuilt,
    "torch._utils._rebuild_tensor_v3": lambda *all: rebuilt(*all, dtype=all[6:] and all[6]),
    "torch._utils._rebuild_parameter": lambda *all: all[0] if all else None,
    "torch._tensor._rebuild_from_type_v2": lambda function, _, arguments, __: function(*arguments),
    "collections.OrderedDict": collections.OrderedDict,
}


def zipped(path: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        (name,) = (item for item in archive.namelist() if item.split("/")[-1] == "data.pkl")
        root = name.removesuffix("data.pkl")

        def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            return np.frombuffer(archive.read(f"{root}data/{key}")[: count * dtype.itemsize], dtype)

        return Plain(io.BytesIO(archive.read(name)), storage).load()


def in_a_row(path: str) -> Any:
    with open(path, "rb") as file:
        storages = {}

        def storage(key: str, dtype: np.dtype, count: int) -> np.ndarray:
            return storages.setdefault(key, np.zeros(count, dtype))

        *_, content, keys = (Plain(file, storage).load() for _ in range(5))
        for key in keys:
            size = int.from_bytes(file.read(8), "little") * storages[key].itemsize
            data = np.frombuffer(file.read(size), storages[key].dtype)
            storages[key][:] = data[: len(storages[key])]
    return content


def flat(content: dict, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for key, value in content.items():
        name = f"{prefix}{key if type(key) in (str, int) else '(object)'}"
        if isinstance(value, dict):
            yield from flat(value, f"{name}.")
        elif isinstance(value, Tensor):
            yield name, value.array


def target(name: str, read: Callable[[str], Any], shape: Callable[[random.Random, bytes], bytes]) -> Target:
    def right(folder: str, value: Arrays) -> bool:
        return value == described(dict(flat(read(os.path.join(folder, name)))))

    content = Path(TORCH, name).read_bytes()
    return Target(name, {name: content}, tensors(name), right, {".bin": shape})


TARGETS: dict[str, Callable[[], Target]] = {
    "torch": functools.partial(target, "zip.bin", zipped, damaged_archive),
    "torch-protocol-4": functools.partial(target, "protocol_4.bin", zipped, damaged_archive),
    "torch-before-1.6": functools.partial(target, "before_1.6.bin", in_a_row, damaged_pickle),
}
