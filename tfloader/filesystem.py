"""What safe reading and writing need of the system beyond Python: regular files alone, locks, two names exchanged."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from typing import IO

try:
    import fcntl
except ImportError:  # Windows has no locks on folders
    fcntl = None

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}


def open_file(path: str | os.PathLike[str], buffering: int = -1) -> IO[bytes]:
    """Opens a file to be read. What is none, such as a pipe that nobody writes to, is an OSError at once."""
    try:
        return open(path, "rb", buffering, opener=_open_regular)
    except ValueError as reason:  # of a NUL, or half of a character
        raise OSError(errno.EINVAL, f"this is no path ({reason})") from reason


def _open_regular(path: str, flags: int) -> int:
    handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return handle
    os.close(handle)
    kind = _KINDS.get(stat.S_IFMT(mode), "device")
    raise OSError(errno.EISDIR if kind == "folder" else errno.EINVAL, f"it is a {kind}, not a file", path)


def state_of(place: str | int) -> tuple[int, ...] | None:
    """What changes when a file does: its identity, size and time of change. `place`: its path, or an open handle.

    None where there is none.
    """
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def exchange(one: str, other: str) -> None:
    """Exchanges two names in one step, where the system and the file system can do that."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError) as reason:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from reason
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextlib.contextmanager
def locked(path: str, create: bool = False) -> Iterator[None]:
    """Keeps out other processes that lock the same folder or file, and waits for them.

    Args:
        create: makes the file, which is there only meanwhile.
    """
    lock = hold(path, wait=True, create=create)
    try:
        yield
    finally:
        if create:
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        if lock is not None:
            os.close(lock)


def hold(path: str, wait: bool, create: bool = False) -> int | None:
    """A handle that locks a folder or file until it is closed, be it by the end of the process.

    None if it is locked already, or the file system has no locks.
    """
    while fcntl is not None:
        with contextlib.ExitStack() as stack:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW if create else os.O_RDONLY
            handle = os.open(path, flags, 0o644)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError:
                return None
            # Or else another one has taken its name, or the process before us has removed the lock file.
            with contextlib.suppress(FileNotFoundError) if create else contextlib.nullcontext():
                if os.path.samestat(os.fstat(handle), os.stat(path)):
                    stack.pop_all()
                    return handle
    return None


def appear(made: str, target: str) -> None:
    """Gives a file or folder its final name by one rename, after all of it is on the disk."""
    sync_all(made)
    os.replace(made, target)
    with contextlib.suppress(OSError):  # it is there; only a power cut could still take its name
        sync(os.path.dirname(os.path.abspath(target)))


def sync_all(path: str) -> None:
    """Makes sure that a file, or a folder with all that is in it, is on the disk."""
    for root, _, names in os.walk(path, topdown=False):
        for name in names:
            if not os.path.islink(os.path.join(root, name)):
                sync(os.path.join(root, name))
        sync(root)
    if not os.path.isdir(path):
        sync(path)


def sync(path: str) -> None:
    if os.name == "nt" and os.path.isdir(path):  # which cannot open folders
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
