"""Reading bounded files and writing a set of them so that no reader meets half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping

from tfloader.errors import TokenizerError


def read_bytes(path: str, limit: int) -> bytes:
    """Returns the content of a file of at most `limit` bytes."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as reason:
        raise TokenizerError(f"{path}: cannot be read ({reason.strerror or reason}).") from reason
    if len(data) > limit:
        raise TokenizerError(f"{path}: larger than the {limit} bytes expected here. Is it the right file?")
    if not data.strip():
        raise TokenizerError(f"{path}: the file is empty. Download it again.")
    return data


def write_files(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, each whole or not at all: first under other names, then renamed."""
    folder = os.fspath(folder)
    written: dict[str, str] = {}
    try:
        os.makedirs(folder, exist_ok=True)
        for name, content in files.items():
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
            written[temporary] = os.path.join(folder, name)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
        for temporary, final in list(written.items()):
            os.replace(temporary, final)
            del written[temporary]
    except OSError as reason:
        raise TokenizerError(f"{folder}: cannot be written ({reason.strerror or reason}).") from reason
    finally:
        for temporary in written:
            os.unlink(temporary)


def json_bytes(content: Mapping) -> bytes:
    """JSON as these files have it."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()
