"""What must be refused, and with which words: one row a fault, named after the promise it tests.

Each row builds its file in an empty folder and gives the path to open. The error must be one CheckpointError
that names that file and the cause.
"""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints.conftest import number
from tfloader.checkpoints import open_checkpoint
from tfloader.errors import CheckpointError

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 440473133\n"
MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
HTML = b"\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>"


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def header_of(**change) -> dict:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | change}


def cut(path: Path, size: int) -> Path:
    os.truncate(path, size)
    return path


def linked(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def npz(path: Path) -> Path:
    with open(path, "wb") as file:
        np.savez(file, a=np.zeros(2))
    return path


def zipped(path: Path, name: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")
    return path


def index_with(craft, folder: Path, shard: str) -> Path:
    craft.good(folder / "model-1.safetensors")
    return craft.index(folder, {"a": shard})


def h5(path: Path, fill) -> Path:
    import h5py

    with h5py.File(path, "w") as file:
        fill(h5py, file)
    return path


def h5_cycle(h5py, file):
    file.create_group("g")["back"] = file["/"]


def h5_soft(h5py, file):
    file["real"] = np.ones(2)
    file["soft"] = h5py.SoftLink("/real")


def h5_external_link(h5py, file):
    file["link"] = h5py.ExternalLink("/etc/passwd", "/x")


def h5_external_data(h5py, file):
    file.create_dataset("x", (2,), "f4", external=[("/etc/passwd", 0, 8)])


def h5_virtual(h5py, file):
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (2,))
    file.create_virtual_dataset("x", layout)


def h5_bomb(h5py, file):
    file.create_dataset("x", (2**40,), "f4")


def h5_chunked_bomb(h5py, file):
    file.create_dataset("x", (2**40,), "f4", chunks=(1024,), compression="gzip")[:2] = 1


def h5_wide_chunk(h5py, file):
    options = {"maxshape": (None, None), "chunks": (2048, 2048), "compression": "gzip"}
    file.create_dataset("x", (2, 2), "f4", **options)[...] = 1


def h5_strings(h5py, file):
    file["x"] = ["a", "b"]


def h5_complex(h5py, file):
    file["x"] = np.ones(2, np.complex64)


def h5_null(h5py, file):
    file["x"] = h5py.Empty("f4")


def h5_filter(h5py, file):
    file.create_dataset("x", (100,), "i4", chunks=(10,), scaleoffset=0)[:] = 1


def h5_twice(h5py, file):
    options = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    options.set_chunk((100,))
    options.set_deflate(9)
    options.set_deflate(9)
    h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((100,)), options)


def tf_files(craft, prefix: Path, index: bytes | None = None, data: bytes | None = None) -> Path:
    craft.tensorflow(prefix)
    if index is not None:
        Path(f"{prefix}.index").write_bytes(index)
    if data is not None:
        Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    return prefix


def tf_entry(craft, prefix: Path, value: bytes, key: bytes = b"a", header: bytes = b"\x08\x01") -> Path:
    return tf_files(craft, prefix, craft.table([(b"", header), (key, value)]))


def tf_state(craft, folder: Path, text: str) -> Path:
    craft.tensorflow(folder / "m.ckpt-1")
    (folder / "checkpoint").write_text(text)
    return folder


def same_block_twice(craft) -> bytes:
    """An index block with two handles of one data block, which has no keys to be out of order."""
    empty = craft.table([])[:13]
    top = craft.sealed(b"\0\1\2a\0\x08" + b"\0\1\2b\0\x08" + b"\0\0\0\0\1\0\0\0" + b"\0")
    return empty + top + bytes([0, 8, 13, len(top) - 5]).ljust(40, b"\0") + MAGIC


def two_blocks_of_zeros(craft, size: int) -> bytes:
    """An index with two data blocks, each of which Snappy expands to so many bytes, almost all of one value."""
    index, handles = b"", []
    for key, value in ((b"", b"\x08\x01"), (b"a", b"")):
        value += b"\x82\x01" + number(size)  # field 16, of so many bytes
        head = b"\0" + number(len(key)) + number(len(value) + size) + key + value + b"\0"
        tail = b"\0" * ((size - 1) % 64) + b"\0\0\0\0\1\0\0\0"
        packed = (
            number(len(head) + size - 1 + 8) + bytes([len(head) - 1 << 2]) + head + b"\xfe\1\0" * ((size - 1) // 64)
        )
        block = craft.sealed(packed + bytes([61 << 2, len(tail) - 1, 0]) + tail + b"\1")
        handles.append((key, len(index), len(block) - 5))
        index += block
    entries = b"".join(
        b"\0\1" + bytes([len(h)]) + b"%c" % (98 + i) + h
        for i, h in enumerate(number(start) + number(length) for _, start, length in handles)
    )
    top = craft.sealed(entries + b"\0\0\0\0\1\0\0\0" + b"\0")
    footer = number(0) + number(4) + number(len(index)) + number(len(top) - 5)
    return index + top + footer.ljust(40, b"\0") + MAGIC


def piece_over_the_end(craft) -> bytes:
    half = craft.entry(1, (2,), 0, 8)
    pieces = b"\x3a\x04\x0a\x02\x10\x02" + b"\x3a\x06\x0a\x04\x08\x03\x10\x02"
    return craft.table(
        [
            (b"", b"\x08\x01"),
            (b"\0x\0\1\1\1\x80\x82", half),
            (b"\0x\0\1\1\1\x83\x82", half),
            (b"x", craft.entry(1, (4,), more=pieces)),
        ]
    )


def without(path: Path) -> Path:
    path.unlink()
    return path


FAULTS = {
    # promise: (build(craft, folder) -> what to open, words of the error)
    # Files
    "a missing file is named": (lambda c, f: f / "x.safetensors", ["no such file"]),
    "a missing prefix shows what is there": (
        lambda c, f: craft_then(c.good(f / "y.safetensors"), f / "x.ckpt"),
        ["no such file", "y.safetensors"],
    ),
    "an empty folder is named": (lambda c, f: f, ["no checkpoint", "is empty", "Accepted"]),
    "a folder of something else is listed": (
        lambda c, f: craft_then(put(f / "notes.txt", b"x"), f),
        ["no checkpoint", "notes.txt", "tf_model.h5"],
    ),
    "a folder where a file should be": (
        lambda c, f: craft_then((f / "x.safetensors" / "y").mkdir(parents=True), f / "x.safetensors"),
        ["no checkpoint", "'y'"],
    ),
    "an empty safetensors": (lambda c, f: put(f / "x.safetensors", b""), ["empty file"]),
    "an empty h5": (lambda c, f: put(f / "x.h5", b""), ["empty file"]),
    "an empty bin": (lambda c, f: put(f / "x.bin", b""), ["empty file"]),
    "an empty index": (lambda c, f: put(f / "x.index", b""), ["empty file"]),
    "an LFS pointer as safetensors": (
        lambda c, f: put(f / "x.safetensors", LFS),
        ["Git LFS", "git lfs pull"],
    ),
    "an LFS pointer as h5": (lambda c, f: put(f / "x.h5", LFS), ["Git LFS"]),
    "an LFS pointer as bin": (lambda c, f: put(f / "x.bin", LFS), ["Git LFS"]),
    "an LFS pointer as index": (lambda c, f: put(f / "x.index", LFS), ["Git LFS"]),
    "an LFS pointer as TF data": (lambda c, f: tf_files(c, f / "m", data=LFS[:20]), ["20 bytes", "32"]),
    "a long LFS pointer as TF data": (
        lambda c, f: craft_then(c.tensorflow(f / "m", {"a": np.ones(100)}), tf_data(f / "m", LFS)),
        ["Git LFS"],
    ),
    "a web page as safetensors": (lambda c, f: put(f / "x.safetensors", HTML), ["web page"]),
    "a JSON error as safetensors": (
        lambda c, f: put(f / "x.safetensors", b'{"error": "Repository not found"}'),
        ["JSON text"],
    ),
    "an S3 error as bin": (lambda c, f: put(f / "x.bin", b"<?xml version='1.0'?><Error/>"), ["web page"]),
    "a JSON file as TF index": (lambda c, f: put(f / "x.index", b'{"a": 1}'), ["JSON text"]),
    "gzip as safetensors": (lambda c, f: put(f / "x.safetensors", gzip.compress(b"x")), ["gzip"]),
    "a zip as a checkpoint": (lambda c, f: zipped(f / "model.zip", "bert/bert_model.ckpt.index"), ["Unpack"]),
    "a zip cut short": (lambda c, f: cut(zipped(f / "x.bin", "archive/data.pkl"), 40), ["cut short"]),
    "npz as bin": (lambda c, f: npz(f / "x.bin"), [".npz"]),
    "a keras archive as h5": (lambda c, f: zipped(f / "x.h5", "model.weights.h5"), [".keras"]),
    "safetensors named .h5": (lambda c, f: c.good(f / "x.h5"), ["safetensors file", "Rename it"]),
    "safetensors named .bin": (lambda c, f: c.good(f / "x.bin"), ["safetensors file", ".safetensors"]),
    "safetensors without an ending": (lambda c, f: c.good(f / "blob"), ["safetensors file", "Rename it"]),
    "h5 named .safetensors": (lambda c, f: h5(f / "x.safetensors", h5_soft), ["HDF5", ".h5"]),
    "torch named .safetensors": (
        lambda c, f: zipped(f / "x.safetensors", "archive/data.pkl"),
        ["PyTorch", ".bin"],
    ),
    "a TF index named .bin": (
        lambda c, f: craft_then(c.tensorflow(f / "m"), Path(f"{f}/m.index").rename(f / "m.bin")),
        ["TensorFlow checkpoint index", ".index"],
    ),
    "unknown bytes named .xyz": (lambda c, f: put(f / "m.xyz", b"\1\2\3"), ["no known format"]),
    "a cut safetensors": (
        lambda c, f: cut(c.good(f / "x.safetensors", "ab"), 130),
        ["x.safetensors", "again"],
    ),
    "a safetensors with junk at the end": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(), b"\0" * 9),
        ["not a valid safetensors"],
    ),
    "a safetensors of 4 bytes": (lambda c, f: put(f / "x.safetensors", b"\1\2\3\4"), ["not an intact"]),
    "a cut h5": (lambda c, f: cut(h5(f / "x.h5", h5_soft), 900), ["not an intact HDF5", "again"]),
    "a garbled h5": (
        lambda c, f: put(f / "x.h5", b"\x89HDF\r\n\x1a\n" + b"\x55" * 3000),
        ["HDF5", "again"],
    ),
    # TensorFlow
    "a TF index without its data": (
        lambda c, f: craft_then(c.tensorflow(f / "m"), without(f / "m.data-00000-of-00001"), f / "m"),
        ["m.data-00000-of-00001", "missing"],
    ),
    "TF data without its index": (
        lambda c, f: craft_then(c.tensorflow(f / "m"), without(f / "m.index"), f / "m.data-00000-of-00001"),
        ["m.index", "no such file"],
    ),
    "TF data cut short": (
        lambda c, f: craft_then(c.tensorflow(f / "m"), cut(f / "m.data-00000-of-00001", 31), f / "m"),
        ["31 bytes", "at least 32"],
    ),
    "a cut TF index": (
        lambda c, f: craft_then(c.tensorflow(f / "m"), cut(f / "m.index", 100), f / "m"),
        ["m.index", "cut short"],
    ),
    "a flipped bit in the TF index": (
        lambda c, f: craft_then(c.tensorflow(f / "m"), flip(f / "m.index", 20), f / "m"),
        ["checksum does not match"],
    ),
    "several TF checkpoints": (
        lambda c, f: craft_then(c.tensorflow(f / "m-1"), c.tensorflow(f / "m-2"), f),
        ["several", "m-1.index", "m-2.index"],
    ),
    "a state file that names another step": (
        lambda c, f: tf_state(c, f, 'model_checkpoint_path: "/gone/m.ckpt-2"\n'),
        ["m.ckpt-2.index", "m.ckpt-1.index"],
    ),
    "a state file that is none": (lambda c, f: tf_state(c, f, "<html>"), ["state file", "web page"]),
    "a path that TF takes for a pattern": (lambda c, f: f / "m[1].index", ["pattern"]),
    "no negative sizes in a TF index": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (-2, 3), 0, 24)),
        ["negative"],
    ),
    "no absurd sizes in a TF index": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (2**40, 2**40), 0, 24)),
        ["larger than any memory"],
    ),
    "declared 2^40 in a TF index": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (2**38,), 0, 2**40)),
        ["at least 1099511627776"],
    ),
    "an offset beyond the TF data": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (2,), 2**62, 8)),
        ["at least"],
    ),
    "shape and bytes of a TF entry disagree": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (2,), 0, 24)),
        ["takes 8 bytes, but 24"],
    ),
    "a TF shard that does not exist": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (2,), 0, 8, shard=1)),
        ["data file 1 of 1"],
    ),
    "a big-endian TF checkpoint": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (2,), 0, 8), header=b"\x08\x01\x10\x01"),
        ["big-endian"],
    ),
    "a name that is not UTF-8": (lambda c, f: tf_entry(c, f / "m", b"", key=b"\xff\xfe"), ["UTF-8"]),
    "a TF key that comes twice": (
        lambda c, f: tf_files(
            c,
            f / "m",
            c.table([(b"", b"\x08\x01"), (b"a", c.entry(1, (2,), 0, 8)), (b"a", c.entry(1, (2,), 8, 8))]),
        ),
        ["not in order"],
    ),
    "a TF block in an unknown compression": (
        lambda c, f: tf_files(c, f / "m", c.table([(b"", b"\x08\x01")], compression=4)),
        ["compressed", "type 4"],
    ),
    "a TF block in damaged Snappy": (
        lambda c, f: tf_files(c, f / "m", c.table([(b"", b"\x08\x01")], compression=1)),
        ["compressed block is damaged"],
    ),
    "TF blocks that are small alone and large together": (
        lambda c, f: tf_files(c, f / "m", two_blocks_of_zeros(c, 3 * 2**20)),
        ["compressed block is absurdly large"],
    ),
    "a TF block outside of the file": (
        lambda c, f: tf_files(c, f / "m", c.table([(b"", b"")])[:-48] + b"\0\0\xff\x7f\x08".ljust(40, b"\0") + MAGIC),
        ["outside of the file"],
    ),
    "TF blocks that are read twice": (
        lambda c, f: tf_files(c, f / "m", same_block_twice(c)),
        ["blocks overlap"],
    ),
    "a TF key that shares more than there is": (
        lambda c, f: tf_files(c, f / "m", c.table([], pack=lambda body: b"\5\1\0x" + body)),
        ["reaches over its block"],
    ),
    "a TF field that is longer than its entry": (
        lambda c, f: tf_entry(c, f / "m", b"\x08\x01\x12\x7f"),
        ["reaches over its entry"],
    ),
    "a piece that reaches over the whole": (
        lambda c, f: tf_files(c, f / "m", piece_over_the_end(c)),
        ["reaches over the whole"],
    ),
    "a TF entry with bytes for a number": (
        lambda c, f: tf_entry(c, f / "m", b"\x0a\x01x"),
        ["wrong type"],
    ),
    "a TF entry with a number twice": (
        lambda c, f: tf_entry(c, f / "m", b"\x08\x01\x08\x02"),
        ["comes twice"],
    ),
    "a TF tensor of unknown rank": (
        lambda c, f: tf_entry(c, f / "m", b"\x08\x01\x12\x02\x18\x01"),
        ["no shape"],
    ),
    "a piece that is not there": (
        lambda c, f: tf_entry(c, f / "m", c.entry(1, (2,), 0, 0, more=b"\x3a\x04\x0a\x02\x10\x02")),
        ["piece of 'a' is missing"],
    ),
    # Shards
    "a shard that is missing": (
        lambda c, f: craft_then(
            c.good(f / "m1.safetensors"), c.index(f, {"a": "m1.safetensors", "b": "m2.safetensors"})
        ),
        ["m2.safetensors", "no such file"],
    ),
    "all disagreements at once": (
        lambda c, f: craft_then(
            c.good(f / "m1.safetensors", "abx"),
            c.good(f / "m2.safetensors", "bc"),
            c.index(
                f,
                {"a": "m2.safetensors", "b": "m1.safetensors", "c": "m2.safetensors", "d": "m1.safetensors"},
            ),
        ),
        [
            "'a' should be in m2.safetensors, but is not; it is in m1.safetensors",
            "'b' is in more than one shard: m1.safetensors, m2.safetensors",
            "'x' is in m1.safetensors, but not in the index",
            "'d' should be in m1.safetensors, but is not",
        ],
    ),
    "a broken shard": (
        lambda c, f: craft_then(put(f / "m1.safetensors", LFS), c.index(f, {"a": "m1.safetensors"})),
        ["m1.safetensors", "Git LFS"],
    ),
    "an absolute shard": (lambda c, f: index_with(c, f, "/etc/passwd"), ["plain file names", "/etc/passwd"]),
    "a shard above": (lambda c, f: index_with(c, f, "../model-1.safetensors"), ["plain file names"]),
    "a shard below": (lambda c, f: index_with(c, f, "sub/model-1.safetensors"), ["plain file names"]),
    "a Windows shard": (lambda c, f: index_with(c, f, "..\\model-1.safetensors"), ["plain file names"]),
    "a drive": (lambda c, f: index_with(c, f, "C:model-1.safetensors"), ["plain file names"]),
    "a shard called ..": (lambda c, f: index_with(c, f, ".."), ["plain file names"]),
    "a shard with NUL": (lambda c, f: index_with(c, f, "model-1.safetensors\0"), ["plain file names"]),
    "a shard that is a number": (lambda c, f: index_with(c, f, 3), ["plain file names"]),
    "a shard that is a list": (
        lambda c, f: index_with(c, f, [["model-1.safetensors"]]),
        ["plain file names"],
    ),
    "a shard that links out of the folder": (
        lambda c, f: craft_then(
            (f / "in").mkdir(),
            linked(f / "in" / "m1.safetensors", c.good(f / "secret.safetensors")),
            c.index(f / "in", {"a": "m1.safetensors"}),
        ),
        ["symbolic link", "outside"],
    ),
    "a blobs folder that is itself a link": (
        lambda c, f: hub(c, f, blobs_elsewhere=True),
        ["symbolic link", "outside"],
    ),
    "an index without weight_map": (
        lambda c, f: put(f / "model.safetensors.index.json", b'{"weights": {}}'),
        ["weight_map", "'weights'"],
    ),
    "an index with a key twice": (
        lambda c, f: put(f / "model.safetensors.index.json", b'{"weight_map": {"a": "x", "a": "y"}}'),
        ["'a' comes more than once"],
    ),
    "an index that is a list": (lambda c, f: put(f / "model.safetensors.index.json", b"[1]"), ["JSON list"]),
    "an index of 9 MB": (
        lambda c, f: put(f / "model.safetensors.index.json", b'{"weight_map": {}}'.ljust(9 * 2**20)),
        ["9437184 bytes", "at most 8388608"],
    ),
    "an index cut short": (
        lambda c, f: put(f / "model.safetensors.index.json", b'{"weight_map": {"a'),
        ["not valid JSON"],
    ),
    "an index nested too deep": (
        lambda c, f: put(f / "model.safetensors.index.json", b'{"a":' * 10**5),
        ["nested"],
    ),
    "several safetensors and no index": (
        lambda c, f: craft_then(c.good(f / "m1.safetensors"), c.good(f / "m2.safetensors"), f),
        ["several", "m1.safetensors", "m2.safetensors"],
    ),
    # Contents of safetensors
    "a header of 2^63": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(), length=2**63),
        ["9223372036854775808"],
    ),
    "a header over the limit": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(), length=100_000_001),
        ["100000001"],
    ),
    "a header of 9 MB": (
        lambda c, f: c.safetensors(f / "x.safetensors", json.dumps(header_of()).ljust(9 * 2**20), b"\0" * 8),
        ["at most 8388608 are read"],
    ),
    "half of a surrogate pair as a name": (
        lambda c, f: c.safetensors(f / "x.safetensors", {"\ud800": header_of()["a"]}, b"\0" * 8),
        ["not a valid safetensors"],
    ),
    "a shape that is an object": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(shape={}, data_offsets=[0, 4]), b"\0" * 4),
        ["not a valid safetensors"],
    ),
    "offsets that are no whole numbers": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(data_offsets=[0.0, 8.0]), b"\0" * 8),
        ["not a valid safetensors"],
    ),
    "overlapping tensors": (
        lambda c, f: c.safetensors(
            f / "x.safetensors",
            header_of() | {"b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
            b"\0" * 12,
        ),
        ["not a valid safetensors"],
    ),
    "a hole between tensors": (
        lambda c, f: c.safetensors(
            f / "x.safetensors",
            header_of() | {"b": {"dtype": "F32", "shape": [1], "data_offsets": [12, 16]}},
            b"\0" * 16,
        ),
        ["not a valid safetensors"],
    ),
    "declared 2^40 in safetensors": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(shape=[2**38], data_offsets=[0, 2**40])),
        ["not a valid safetensors"],
    ),
    "sizes that overflow": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(shape=[2**32, 2**32], data_offsets=[0, 0])),
        ["not a valid safetensors"],
    ),
    "no data and still no array": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(shape=[0, 2**62], data_offsets=[0, 0])),
        ["larger than any memory"],
    ),
    "100 dimensions": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(shape=[1] * 100, data_offsets=[0, 4]), b"\0" * 4),
        ["100 dimensions"],
    ),
    "a negative size": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(shape=[-2]), b"\0" * 8),
        ["not a valid safetensors"],
    ),
    "a size that is true": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(shape=[True]), b"\0" * 8),
        ["not a valid safetensors"],
    ),
    "a tensor that comes twice": (
        lambda c, f: c.safetensors(
            f / "x.safetensors",
            '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"\0" * 4,
        ),
        ["'a' comes more than once"],
    ),
    "fp8": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(dtype="F8_E4M3", shape=[8]), b"\0" * 8),
        ["'a': 'F8_E4M3'", "not supported"],
    ),
    "an unknown dtype": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(dtype="Q4"), b"\0" * 8),
        ["'a': 'Q4'"],
    ),
    "a dtype that is a list": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of(dtype=[]), b"\0" * 8),
        ["'a': '[]'"],
    ),
    "an entry that is a number": (lambda c, f: c.safetensors(f / "x.safetensors", {"a": 1}), ["not a valid"]),
    "an entry without a shape": (
        lambda c, f: c.safetensors(f / "x.safetensors", {"a": {"dtype": "F32"}}),
        ["not a valid"],
    ),
    "metadata that are numbers": (
        lambda c, f: c.safetensors(f / "x.safetensors", header_of() | {"__metadata__": {"a": 1}}, b"\0" * 8),
        ["not a valid"],
    ),
    "a header that is not UTF-8": (
        lambda c, f: c.safetensors(f / "x.safetensors", b'{"\xff\xff":1}'),
        ["not valid JSON"],
    ),
    "a name of 5 MB is not printed": (
        lambda c, f: c.safetensors(f / "x.safetensors", {"n" * 5 * 10**6: {"dtype": "Q4"}}),
        ["5000000 characters"],
    ),
    # HDF5
    "a cycle of hard links": (lambda c, f: h5(f / "x.h5", h5_cycle), ["'g/back'", "two paths"]),
    "a soft link": (lambda c, f: h5(f / "x.h5", h5_soft), ["'soft'", "soft link"]),
    "an external link": (lambda c, f: h5(f / "x.h5", h5_external_link), ["external link", "/etc/passwd"]),
    "external data": (lambda c, f: h5(f / "x.h5", h5_external_data), ["another file", "/etc/passwd"]),
    "a named datatype": (
        lambda c, f: h5(f / "x.h5", lambda h5py, file: file.__setitem__("x", np.dtype("f4"))),
        ["'x': a Datatype, which is neither an array nor a group"],
    ),
    "a virtual dataset": (lambda c, f: h5(f / "x.h5", h5_virtual), ["virtual dataset"]),
    "declared 2^40 in HDF5": (
        lambda c, f: h5(f / "x.h5", h5_bomb),
        ["declares 4398046511104", "0 bytes are stored"],
    ),
    "declared 2^40 in compressed HDF5": (lambda c, f: h5(f / "x.h5", h5_chunked_bomb), ["chunks are stored"]),
    "a chunk of 16 MB for 16 bytes": (
        lambda c, f: h5(f / "x.h5", h5_wide_chunk),
        ["unpack to 16777216 bytes for 16 of data"],
    ),
    "strings in HDF5": (lambda c, f: h5(f / "x.h5", h5_strings), ["'x'", "expected numbers"]),
    "complex numbers in HDF5": (lambda c, f: h5(f / "x.h5", h5_complex), ["complex64"]),
    "a dataset without a value": (lambda c, f: h5(f / "x.h5", h5_null), ["no value"]),
    "data compressed twice": (lambda c, f: h5(f / "x.h5", h5_twice), ["more than once"]),
    "a filter that can expand without bound": (lambda c, f: h5(f / "x.h5", h5_filter), ["filter number 6"]),
    # Dicts
    "a dict with keys that are no names": (lambda c, f: {1: np.ones(2)}, ["<dict", "is a int, not a str"]),
    "a dict of objects": (lambda c, f: {"a": np.array([object()])}, ["'a'", "object"]),
    "a dict of strings": (lambda c, f: {"a": "text"}, ["'a'", "dtype"]),
    "a dict of complex numbers": (lambda c, f: {"a": np.ones(2, complex)}, ["complex128"]),
    "a dict of ragged lists": (lambda c, f: {"a": [[1], [1, 2]]}, ["'a'"]),
}


def craft_then(*steps):
    """The last step is what to open."""
    return steps[-1]


def flip(path: Path, at: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    return put(path, bytes(data))


def tf_data(prefix: Path, data: bytes) -> Path:
    put(Path(f"{prefix}.data-00000-of-00001"), data)
    return prefix


def hub(craft, folder: Path, blobs_elsewhere: bool = False) -> Path:
    """A folder as the Hugging Face cache has it: every file is a link to ../../blobs."""
    snapshot = folder / "models--x" / "snapshots" / "123"
    snapshot.mkdir(parents=True)
    blobs = folder / "models--x" / "blobs"
    if blobs_elsewhere:
        (folder / "elsewhere").mkdir()
        blobs.symlink_to(folder / "elsewhere")
    else:
        blobs.mkdir()
    craft.good(blobs / "hash1")
    craft.index(blobs, {"a": "m1.safetensors"}).rename(blobs / "hash2")
    (snapshot / "m1.safetensors").symlink_to("../../blobs/hash1")
    (snapshot / "model.safetensors.index.json").symlink_to("../../blobs/hash2")
    return snapshot


@pytest.mark.parametrize("promise", FAULTS)
def test_is_refused(promise, craft, tmp_path):
    build, words = FAULTS[promise]
    source = build(craft, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(source)
    message = str(caught.value)
    if not isinstance(source, dict):
        assert str(tmp_path) in message
    message = message.replace(str(tmp_path), "")  # pytest puts the promise's words into it
    for word in words:
        assert word in message
    assert len(message) < 5000
    assert "Traceback" not in message


def test_the_hub_cache_is_read_through_its_links(craft, tmp_path):
    with open_checkpoint(hub(craft, tmp_path)) as checkpoint:
        assert checkpoint.read("a").tolist() == [0, 1]


def test_a_link_inside_of_the_folder_is_read(craft, tmp_path):
    linked(tmp_path / "m1.safetensors", craft.good(tmp_path / "real"))
    assert list(open_checkpoint(craft.index(tmp_path, {"a": "m1.safetensors"}))) == ["a"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_permissions(craft, tmp_path):
    path = craft.good(tmp_path / "x.safetensors")
    path.chmod(0)
    with pytest.raises(CheckpointError, match="no permission"):
        open_checkpoint(path)


def test_permission_errors_are_said_again(craft, tmp_path, monkeypatch):
    path = craft.good(tmp_path / "x.safetensors")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: no permission"):
        open_checkpoint(path)


def test_a_flipped_bit_in_tensorflow_data_is_found(craft, tmp_path):
    prefix = craft.tensorflow(tmp_path / "m")
    flip(tmp_path / "m.data-00000-of-00001", 5)
    checkpoint = open_checkpoint(prefix)
    with pytest.raises(CheckpointError, match=r"m: reading 'a' failed: the data's checksum does not match"):
        checkpoint.read("a")
    assert checkpoint.read("b/c") == 7


@pytest.mark.parametrize("kind", ["safetensors", "tensorflow", "hdf5", "torch", "memory"])
def test_unknown_names_and_closed_checkpoints(kind, craft, tmp_path):
    sources = {
        "safetensors": lambda: craft.good(tmp_path / "x.safetensors"),
        "tensorflow": lambda: craft.tensorflow(tmp_path / "m"),
        "hdf5": lambda: h5(tmp_path / "x.h5", lambda h5py, file: file.create_dataset("a", data=np.ones(2))),
        "torch": lambda: craft.torch(tmp_path / "x.bin", {"a": np.ones(2, np.float32)}),
        "memory": lambda: {"a": np.ones(2)},
    }
    checkpoint = open_checkpoint(sources[kind]())
    assert checkpoint.format == kind
    with pytest.raises(CheckpointError, match="there is no tensor 'aa' among"):
        checkpoint.read("aa")
    with pytest.raises(KeyError):
        checkpoint["aa"]
    with checkpoint:
        checkpoint.read("a")
    checkpoint.close()
    with pytest.raises(CheckpointError, match="was closed"):
        checkpoint.read("a")
