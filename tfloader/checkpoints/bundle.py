"""The `.index` file of a TensorFlow checkpoint, read without TensorFlow.

The file is a sorted table (see table.py). The key "" holds the bundle's header; every other key is a tensor's
name and its value an entry in protobuf's wire format: dtype, shape, and where in which data file the bytes
are. A variable that was saved in pieces has one entry for the whole, without data, and one under a key that
starts with NUL for each piece. Only what the entries say is checked here, not yet the data files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tfloader.checkpoints.files import expect
from tfloader.checkpoints.table import MAX_TABLE_BYTES, DamagedError, read_table, varint
from tfloader.errors import CheckpointError
from tfloader.files import read_bytes, show


@dataclass(frozen=True)
class Entry:
    """Where one tensor, or one piece of it, lies. `dtype` is TensorFlow's number of it."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    nbytes: int
    # Of a variable saved in pieces: each piece as (start, length) a dimension; length -1 is all of it.
    pieces: tuple[tuple[tuple[int, int], ...], ...] = ()


@dataclass(frozen=True)
class Bundle:
    """The contents of one index file: the tensors by name, and the pieces of those saved in pieces by key."""

    shards: int
    tensors: dict[str, Entry]
    pieces: dict[bytes, Entry]

    def extents(self) -> dict[int, int]:
        """For each data file in use, the size that it must have at least."""
        ends: dict[int, int] = {}
        for entry in (*self.pieces.values(), *(e for e in self.tensors.values() if not e.pieces)):
            ends[entry.shard] = max(ends.get(entry.shard, 0), entry.offset + entry.nbytes)
        return ends


def read_bundle(path: str) -> Bundle:
    """Reads an index file; one that is damaged, too large, or of an unknown variant is a CheckpointError."""
    expect(path, "the index of a TensorFlow checkpoint", "tf-index")
    try:
        return _parse(read_bytes(path, CheckpointError, MAX_TABLE_BYTES))
    except DamagedError as error:
        raise CheckpointError(
            f"{path}: this is no intact index of a TensorFlow checkpoint: {error}. "
            "Download it again, together with its data file."
        ) from error


def _parse(data: bytes) -> Bundle:
    header: int | None = None
    tensors: dict[str, Entry] = {}
    pieces: dict[bytes, Entry] = {}
    for key, value in read_table(data):
        if header is None:
            if key:
                raise DamagedError("it does not begin with a header")
            header = _header(value)
        elif key[0] == 0:
            pieces[key] = _entry("a piece of a variable", value, header)
        else:
            try:
                name = key.decode()
            except UnicodeDecodeError:
                raise DamagedError(f"a tensor's name is not UTF-8: {key[:100]!r}") from None
            tensors[name] = _entry(show(name), value, header)
    if header is None:
        raise DamagedError("it is empty")
    for name, entry in tensors.items():
        if entry.pieces:
            _check_pieces(name, entry, pieces)
    return Bundle(header, tensors, pieces)


# Variables in pieces


def _check_pieces(name: str, whole: Entry, pieces: dict[bytes, Entry]) -> None:
    """Each piece must be there and be what the whole says: TensorFlow trusts that, and crashes otherwise."""
    covered = 0
    for extents in whole.pieces:
        if len(extents) != len(whole.shape):
            raise DamagedError(f"a piece of {show(name)} has {len(extents)} dimensions")
        sizes = tuple(full if n == -1 else n for (_, n), full in zip(extents, whole.shape, strict=True))
        piece = pieces.get(_piece_key(name, extents))
        if piece is None or piece.pieces or (piece.dtype, piece.shape) != (whole.dtype, sizes):
            raise DamagedError(f"a piece of {show(name)} is missing or not as announced")
        if any(start + n > full for (start, _), n, full in zip(extents, sizes, whole.shape, strict=True)):
            raise DamagedError(f"a piece of {show(name)} reaches over the whole")
        covered += math.prod(sizes)
    if covered != math.prod(whole.shape):  # with that, TensorFlow's own check of overlaps suffices
        raise DamagedError(f"the pieces of {show(name)} do not add up to the whole")


def _piece_key(name: str, extents: tuple[tuple[int, int], ...]) -> bytes:
    """The key of a piece, in TensorFlow's code of (0, name, rank, start, length, ...) that sorts by value."""

    def signed(value: int) -> bytes:
        if value == -1:
            return b"\x7f"
        # As many leading ones as there are bytes, then a zero and the number.
        width = value.bit_length() // 7 + 1
        if width > 7:
            raise DamagedError(f"a piece of {show(name)} is absurdly large")
        return (value | (2**width - 1) << (7 * width)).to_bytes(width, "big")

    escaped = name.encode().replace(b"\xff", b"\xff\x00").replace(b"\x00", b"\x00\xff")
    rank = bytes([1, len(extents)]) if extents else b"\0"
    return b"\0" + escaped + b"\0\1" + rank + b"".join(signed(n) for extent in extents for n in extent)


# The entries, in protobuf's wire format


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The (field number, value) pairs of a message: ints for varints, bytes for everything else."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        wire = tag & 7
        if wire not in (0, 1, 2, 5):
            raise DamagedError(f"an entry has a field of unknown wire type {wire}")
        number, at = varint(data, at) if wire in (0, 2) else ({1: 8, 5: 4}[wire], at)
        if wire == 0:
            yield tag >> 3, number
            continue
        if at + number > len(data):
            raise DamagedError("a field reaches over its entry")
        yield tag >> 3, data[at : at + number]
        at += number


def _message(data: bytes, numbers: tuple[int, ...], messages: tuple[int, ...] = ()) -> dict[int, list]:
    """The fields by number; those in `numbers` are varints that come at most once."""
    fields: dict[int, list] = {}
    for number, value in _fields(data):
        if isinstance(value, int) != (number in numbers) and number in (*numbers, *messages):
            raise DamagedError("a field has the wrong type")
        fields.setdefault(number, []).append(value)
    if any(len(fields.get(number, ())) > 1 for number in numbers):
        raise DamagedError("a field comes twice")
    return fields


def _header(data: bytes) -> int:
    """Gives the number of data files."""
    fields = _message(data, numbers=(1, 2), messages=(3,))
    if fields.get(2, [0])[0] != 0:
        raise DamagedError("it was written on a big-endian machine, which is not supported")
    return fields.get(1, [0])[0]


def _entry(name: str, data: bytes, shards: int) -> Entry:
    fields = _message(data, numbers=(1, 3, 4, 5), messages=(2, 7))
    dims: list[int] = []
    for shape in fields.get(2, ()):
        shape_fields = _message(shape, numbers=(3,), messages=(2,))
        if shape_fields.get(3, [0])[0]:
            raise DamagedError(f"{name} has no shape")
        for dim in shape_fields.get(2, ()):
            dims += _message(dim, numbers=(1,)).get(1, [0])
    pieces = []
    for piece in fields.get(7, ()):
        extents = [_message(extent, numbers=(1, 2)) for extent in _message(piece, (), messages=(1,)).get(1, ())]
        pieces.append(tuple((extent.get(1, [0])[0], extent.get(2, [-1])[0]) for extent in extents))
    dtype, shard, offset, nbytes = (fields.get(number, [0])[0] for number in (1, 3, 4, 5))
    if shard >= shards:
        raise DamagedError(f"{name} is said to be in data file {shard} of {shards}")
    return Entry(dtype, tuple(dims), shard, offset, nbytes, tuple(pieces))
