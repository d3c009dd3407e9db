"""The folder that a conversion makes: it appears by one rename, whole, or not at all.

Until then everything is in `.NAME.*.part` beside it, which a killed process leaves behind and the next one removes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator

from tfloader.checkpoints.writing import sync
from tfloader.errors import ConversionError
from tfloader.naming import folder_of

try:
    import fcntl
except ImportError:  # Windows, where what a killed process left stays
    fcntl = None

SMALL_FILES = 64 * 1000**2  # bytes, for config and tokenizer


def problems_with(target: str, source: str | None) -> Iterator[str]:
    """Why a folder cannot be the target; the source is None where it is no file."""
    place = os.path.realpath(target)
    original = None if source is None else os.path.realpath(folder_of(source))
    if place == original:
        yield f"{target}: the target is the source. Give another folder."
    elif original is not None and os.path.commonpath([place, original]) == original:
        yield f"{target}: the target lies inside the source, which stays as it is. Give a folder elsewhere."
    elif os.path.isdir(target):
        if found := sorted(os.listdir(target)):
            shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
            yield f"{target}: the folder is there and holds {shown}. Give a new one, or empty it."
    elif os.path.lexists(target):
        yield f"{target}: there is a file of this name. Give the name of a new folder."


@contextlib.contextmanager
def new_folder(target: str, nbytes: int) -> Iterator[str]:
    """Gives a folder to fill with about `nbytes` bytes, which becomes `target` if nothing goes wrong.

    Raises:
        ConversionError: too little room, no permission, or something else has taken the target's place.
    """
    target = os.path.abspath(target)
    parent, name = os.path.split(target)
    try:
        os.makedirs(parent, exist_ok=True)
        _remove_leftovers(parent, name)
        free = shutil.disk_usage(parent).free
        if free < nbytes + SMALL_FILES:
            raise ConversionError(
                f"{target}: {nbytes + SMALL_FILES} bytes are to be written, but only {free} are free. "
                "Make room or choose another disk."
            )
        stage = os.path.join(parent, f".{name}.{secrets.token_hex(4)}.part")
        os.mkdir(stage)
        lock = None
        try:
            lock = _lock(stage)
            yield stage
            sync(stage)
            if os.name == "nt" and os.path.isdir(target):  # where nothing can be renamed over a folder
                os.rmdir(target)
            os.rename(stage, target)
            with contextlib.suppress(OSError):  # the target is whole; only a power cut could still take its name
                sync(parent)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
            if lock is not None:
                os.close(lock)
    except OSError as error:
        raise ConversionError(
            f"{target}: writing failed: {error.strerror or error}. Check permissions and free space. "
            "Nothing was left there."
        ) from error


def _lock(folder: str) -> int | None:
    """Holds a folder for as long as this process lives; None where another one holds it."""
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _remove_leftovers(parent: str, name: str) -> None:
    """Removes what killed conversions to the same target left."""
    for found in os.listdir(parent):
        if found.startswith(f".{name}.") and found.endswith(".part") and fcntl is not None:
            path = os.path.join(parent, found)
            lock = _lock(path) if os.path.isdir(path) and not os.path.islink(path) else None
            if lock is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
