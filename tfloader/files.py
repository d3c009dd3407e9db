"""Small files: untrusted ones are read bounded and strictly, with errors that name the file; ours appear whole."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tfloader.errors import ConfigError, TfloaderError
from tfloader.filesystem import open_file, state_of
from tfloader.staging import Replaces, finish, nothing, staged

MAX_TEXT_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = 4 * 1024 * 1024  # of configs, which are kilobytes; parsed, JSON takes up to 25 times its size
MAX_HEADER_BYTES = 4 << 20  # of an archive
# What our tokenizers write, the original names of the same, and what other programs put beside.
TOKENIZER_FILES = frozenset(
    {
        *("vocab.txt", "vocab.json", "merges.txt", "encoder.json", "vocab.bpe", "spiece.model", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    }
)


def show(name: str) -> str:
    """A name as errors print it: quoted, and cut where it is absurdly long."""
    return repr(name) if len(name) <= 200 else f"{name[:150]!r}... ({len(name)} characters)"


def read_text(path: str, error: type[TfloaderError] = ConfigError, limit: int = MAX_TEXT_BYTES) -> str:
    """Returns the UTF-8 text of a file of at most `limit` bytes; a byte order mark is dropped."""
    return decoded(read_bytes(path, error, limit), path, error)


def read_bytes(path: str, error: type[TfloaderError], limit: int = MAX_TEXT_BYTES) -> bytes:
    """Returns the content of a file of at most `limit` bytes, which is not empty."""
    finish(os.path.dirname(path) or ".", error)
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise error(
                    f"{path}: the file has {size} bytes; at most {limit} are expected here. Is it the right file?"
                )
            before = state_of(file.fileno())
            data = file.read(size)
            if state_of(file.fileno()) != before:
                raise OSError(errno.EBUSY, "it changed meanwhile")
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror or reason}).") from reason
    if not data.strip():
        raise error(f"{path}: the file is empty. Download it again.")
    return data


def decoded(
    data: bytes, path: str, error: type[TfloaderError], encoding: str = "UTF-8", expected: str | None = None
) -> str:
    """The text of a file's bytes; a byte order mark is dropped."""
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as reason:
        expected = expected or f"{encoding} text"
        raise error(f"{path}: not {expected} (byte {reason.start}). Is it the right file?") from reason
    except LookupError:
        raise error(f"encoding: Python knows no encoding {encoding!r}.") from None


class Bounded:
    """An open archive for a library that reads it: no more than a header's size at once, no further than `limit`."""

    def __init__(self, file: Any, limit: int | None = None):
        self._file, self._limit = file, limit
        self.tell, self.seekable = file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, MAX_HEADER_BYTES + 1) if size >= 0 else MAX_HEADER_BYTES + 1)
        if len(data) > MAX_HEADER_BYTES:
            raise ValueError("a header of absurd size")
        self._check(self._file.tell())
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check(offset)
        return self._file.seek(offset, whence)

    def _check(self, place: int) -> None:
        if self._limit is not None and place > self._limit:
            raise ValueError("it unpacks to more than its size allows")


def read_json(
    path: str, error: type[TfloaderError] = ConfigError, limit: int = MAX_JSON_BYTES, kind: type = dict
) -> Any:
    """Returns the JSON object in a file, or with `kind=list` the array.

    Stricter than `json.load`: a repeated key, NaN or Infinity, or anything but an object is refused,
    because two readers of such a file may understand two different things.
    """
    return parse_json(read_text(path, error, limit), path, error, kind)


def parse_json(text: str | bytes, path: str, error: type[TfloaderError] = ConfigError, kind: type = dict) -> Any:
    """`read_json` for text that is already in memory; `path` is what errors name."""
    if isinstance(text, bytes):
        text = decoded(text, path, error, expected="valid JSON, which is UTF-8 text")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            repeated = [key for key, times in Counter(key for key, _ in pairs).items() if times > 1]
            shown = ", ".join(map(show, repeated[:5])) + (" ..." if len(repeated) > 5 else "")
            raise error(f"{path}: the key {shown} comes more than once. Remove one of them.")
        return result

    def constant(name: str) -> Any:
        raise error(f"{path}: the value {name} is not valid JSON. Put a number there.")

    try:
        result = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except RecursionError as reason:
        raise error(f"{path}: the JSON is nested too deeply to be a real file of this kind.") from reason
    except ValueError as reason:
        start = text.lstrip()[:40].splitlines()[0] if text.strip() else ""
        reported = f"not valid JSON ({str(reason)[:300]}); it starts with {start!r}"
        raise error(f"{path}: {reported}. Download it again.") from reason
    if not isinstance(result, kind):
        expected = {dict: "object", list: "array"}[kind]
        raise error(f"{path}: expected a JSON {expected}, found a JSON {type(result).__name__}.")
    return result


def json_bytes(content: Any) -> bytes:
    """JSON as we write it."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def write_json(path: str, content: Any, error: type[TfloaderError] = TfloaderError) -> None:
    """Writes a JSON file: readers see the old file or the whole new one."""
    write_bytes(path, json_bytes(content), error)


def write_bytes(path: str, data: bytes, error: type[TfloaderError] = TfloaderError) -> None:
    """Writes a file: readers see the old file or the whole new one."""
    folder, name = os.path.split(os.path.abspath(path))
    write_files(folder, {name: data}, error)


def write_files(
    folder: str | os.PathLike[str],
    files: Mapping[str, bytes],
    error: type[TfloaderError] = TfloaderError,
    replaces: Replaces = nothing,
) -> None:
    """Writes files into a folder, all at once or none of them; `replaces` as in `staged`."""
    with staged(folder, error, sum(map(len, files.values())), replaces) as stage:
        for name, data in files.items():
            with open(os.path.join(stage, name), "wb") as file:
                file.write(data)
