"""The sorted table inside of a TensorFlow checkpoint's `.index`: ordered keys, each with a value, both bytes.

A table is data blocks of pairs whose keys leave out what they share with the key before, an index block that
points at the data blocks, and a 48-byte footer that points at the index block. Each block carries a CRC32C
and may be compressed with Snappy.

Every length is checked against what is there before it is used, and every byte is read once at most, so a
damaged or hostile table ends in a DamagedError, not in a crash, a large allocation or an endless loop.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

TABLE_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")

# Of the file, and of all that its blocks expand to: 2000 tensors need about 0.2 MB, and 4 MB take seconds to read.
MAX_TABLE_BYTES = 4 * 2**20
_MAX_KEYS, _MAX_KEY_BYTES = 100_000, 16 * 2**20
_FOOTER, _TRAILER = 48, 5


class DamagedError(ValueError):
    """Something contradicts the format. Its users say it again with the file's name."""


def read_table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of the table, whose keys are strictly increasing."""
    if len(data) < _FOOTER or not data.endswith(TABLE_MAGIC):
        raise DamagedError("its last bytes are not those of an index, so it may be cut short")
    footer = data[-_FOOTER:]
    _, at = _handle(footer, 0)  # the meta-index, which bundles leave empty
    handle, _ = _handle(footer, at)
    last_key: bytes | None = None
    last_end, count, key_bytes, left = 0, 0, 0, MAX_TABLE_BYTES
    for _, value in _entries(_block(data, handle, left)):
        (offset, size), _ = _handle(value, 0)
        if offset < last_end:
            raise DamagedError("its blocks overlap")
        last_end = offset + size
        block = _block(data, (offset, size), left)
        left -= len(block)
        for key, value in _entries(block):
            if last_key is not None and key <= last_key:
                raise DamagedError(f"the keys are not in order at {key[:100]!r}")
            last_key = key
            count, key_bytes = count + 1, key_bytes + len(key)
            if count > _MAX_KEYS or key_bytes > _MAX_KEY_BYTES:
                raise DamagedError("it has absurdly many or long names")
            yield key, value


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(data: bytes, handle: tuple[int, int], limit: int) -> bytes:
    offset, size = handle
    end = offset + size
    if end + _TRAILER > len(data) - _FOOTER or size < 4:
        raise DamagedError("a block lies outside of the file")
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    crc = crc32c(data[offset : end + 1])
    if stored != ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF:  # masked, as LevelDB stores it
        raise DamagedError("a block's checksum does not match")
    block, kind = data[offset:end], data[end]
    if kind not in (0, 1):
        raise DamagedError(f"a block is compressed in an unknown way (type {kind})")
    return decompress_snappy(block, limit) if kind else block


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise DamagedError("a block has more restart points than bytes")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        rest, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or at + rest + length > end:
            raise DamagedError("an entry reaches over its block")
        key = key[:shared] + block[at : at + rest]
        at += rest
        yield key, block[at : at + length]
        at += length


def decompress_snappy(data: bytes, limit: int = MAX_TABLE_BYTES) -> bytes:
    """Expands Snappy's raw format, which the indexes of Google's T5 checkpoints are compressed with."""
    length, at = varint(data, 0)
    if length > limit:
        raise DamagedError("a compressed block is absurdly large")
    out = bytearray()
    while at < len(data) and len(out) <= length:
        tag, at = data[at], at + 1
        if tag & 3 == 0:  # literal bytes; lengths over 60 stand in the next 1 to 4 bytes
            count = tag >> 2
            if count >= 60:
                width = count - 59
                count, at = int.from_bytes(data[at : at + width], "little"), at + width
            count += 1
            if at + count > len(data):
                break
            out += data[at : at + count]
            at += count
            continue
        # A copy of earlier output, which may overlap what it writes.
        width = (1, 2, 4)[(tag & 3) - 1]
        back, at = int.from_bytes(data[at : at + width], "little"), at + width
        count = (tag >> 2) + 1
        if width == 1:
            back |= tag >> 5 << 8
            count = (tag >> 2 & 7) + 4
        if not 0 < back <= len(out) or at > len(data):
            break
        copied = out[len(out) - back : len(out) - back + count]
        out += (copied * -(-count // back))[:count]
    if at != len(data) or len(out) != length:
        raise DamagedError("a compressed block is damaged")
    return bytes(out)


@functools.cache
def _crc_table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [value >> 1 ^ (0x82F63B78 if value & 1 else 0) for value in table]
    return table


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`; about 10 MB/s, enough for an index."""
    table, crc = _crc_table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def varint(data: bytes, at: int) -> tuple[int, int]:
    """The number at `at`, seven bits a byte, and the position after it; negative ones are refused."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**63:  # a negative int64; no field that is read here may be negative
                break
            return value, at
    raise DamagedError("a number is cut short, negative or too large")
