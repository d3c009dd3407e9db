"""Builders of tiny checkpoint files, good and bad, that the tests here share."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tfloader.checkpoints import TensorSpec
from tfloader.checkpoints.table import TABLE_MAGIC, crc32c, varint

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class Craft:
    """Each method writes one file, or gives the bytes of one."""

    @staticmethod
    def items(arrays: dict) -> list:
        """What the writers take."""
        return [
            (name, TensorSpec(array.shape, array.dtype.name), lambda array=array: array)
            for name, array in arrays.items()
        ]

    @staticmethod
    def safetensors(path: Path, header: dict | str | bytes, data: bytes = b"", length: int | None = None) -> Path:
        """A file with exactly this header, valid or not."""
        if isinstance(header, dict):
            header = json.dumps(header)
        if isinstance(header, str):
            header = header.encode()
        path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
        return path

    @staticmethod
    def good(path: Path, names: str = "a") -> Path:
        """A valid safetensors file with one float32 vector of two for each letter of `names`."""
        header = {
            name: {"dtype": "F32", "shape": [2], "data_offsets": [8 * i, 8 * i + 8]} for i, name in enumerate(names)
        }
        return Craft.safetensors(path, header, np.arange(2 * len(names), dtype=np.float32).tobytes())

    @staticmethod
    def index(folder: Path, weight_map: object, ending: str = "safetensors") -> Path:
        stem = "model" if ending == "safetensors" else "pytorch_model"
        path = folder / f"{stem}.{ending}.index.json"
        path.write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
        return path

    @staticmethod
    def torch(path: Path, arrays: dict, more: bytes = b"", zipped: bool = True, **change: Any) -> Path:
        """What PyTorch writes for a dict of float32 arrays, with `more` pickled keys and values, and with changes."""
        pickle = b"\x80\2}("
        for key, (name, array) in enumerate(arrays.items()):
            tensor = {"kind": "Float", "count": array.size, "offset": 0, "sizes": array.shape}
            tensor |= {"strides": tuple(n // array.itemsize for n in array.strides)} | change
            storage = [text("storage"), b"ctorch\n%sStorage\n" % tensor["kind"].encode(), text(str(key)), text("cpu")]
            storage += [whole(tensor["count"]), b"" if zipped else b"N"]
            parts = [b"((", *storage, b"tQ", whole(tensor["offset"])]
            parts += [b"(%st" % b"".join(map(whole, tensor[which])) for which in ("sizes", "strides")]
            pickle += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n" + b"".join(parts)
            pickle += b"\x89ccollections\nOrderedDict\n)RtR"
        pickle += more + b"u."
        data = [array.tobytes() for array in arrays.values()]
        if zipped:
            with zipfile.ZipFile(path, "w") as archive:
                for member, content in {
                    "data.pkl": pickle,
                    **{f"data/{i}": part for i, part in enumerate(data)},
                }.items():
                    archive.writestr(f"archive/{member}", content)
            return path
        start = b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\2M\xe9\x03."
        start += b"\x80\2}" + text("little_endian") + b"\x88s." + pickle
        keys = b"\x80\2](" + b"".join(text(str(key)) for key in range(len(data))) + b"e."
        counts = [struct.pack("<q", array.size) for array in arrays.values()]
        path.write_bytes(start + keys + b"".join(map(b"".join, zip(counts, data, strict=True))))
        return path

    @staticmethod
    def tensorflow(prefix: Path, arrays: dict | None = None) -> Path:
        """A checkpoint that TensorFlow itself writes."""
        import tensorflow as tf

        arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b/c": np.int64(7)} if arrays is None else arrays
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(arrays),
            shape_and_slices=[""] * len(arrays),
            tensors=[tf.convert_to_tensor(array) for array in arrays.values()],
        )
        return prefix

    @staticmethod
    def table(pairs: list[tuple[bytes, bytes]], compression: int = 0, pack=bytes) -> bytes:
        """An index file with these keys and values in one block, packed by `pack`, with valid checksums."""

        def block(entries: list[tuple[bytes, bytes]], kind: int = 0, pack=bytes) -> bytes:
            body = b"".join(b"\0" + number(len(k)) + number(len(v)) + k + v for k, v in entries)
            body += struct.pack("<II", 0, 1)
            return Craft.sealed(pack(body) + bytes([kind]))

        data, empty = block(pairs, compression, pack), block([])
        handles = [number(0) + number(len(data) - 5)]
        top = block([(b"\xff", handles[0])])
        footer = number(len(data)) + number(len(empty) - 5)
        footer += number(len(data) + len(empty)) + number(len(top) - 5)
        return data + empty + top + footer.ljust(40, b"\0") + TABLE_MAGIC

    @staticmethod
    def sealed(block: bytes) -> bytes:
        """A block (its type byte included) and its masked checksum."""
        crc = crc32c(block)
        return block + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    @staticmethod
    def resealed(index: bytes) -> bytes:
        """An index of one data block, changed somewhere, with its checksums made valid again."""
        meta, at = varint(index[-48:], 0)
        meta_size, at = varint(index[-48:], at)
        top, at = varint(index[-48:], at)
        top_size, _ = varint(index[-48:], at)
        blocks = [index[: meta - 5 + 1], index[meta : meta + meta_size + 1], index[top : top + top_size + 1]]
        return b"".join(map(Craft.sealed, blocks)) + index[-48:]

    @staticmethod
    def entry(dtype: int, shape: tuple, offset: int = 0, nbytes: int = 0, shard: int = 0, more: bytes = b"") -> bytes:
        """A BundleEntryProto."""
        dims = b"".join(field(2, field(1, dim)) for dim in shape)
        return field(1, dtype) + field(2, dims) + field(3, shard) + field(4, offset) + field(5, nbytes) + more


def text(value: str) -> bytes:
    """A pickled str."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    """A pickled int."""
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def number(value: int) -> bytes:
    """A varint; negative values as protobuf's int64 writes them."""
    value %= 2**64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(tag: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return number(tag << 3) + number(value)
    return number(tag << 3 | 2) + number(len(value)) + value


@pytest.fixture(scope="session")
def craft() -> type[Craft]:
    return Craft
