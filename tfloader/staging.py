"""One way to write: files are made in a hidden folder, and then appear in their folder all at once, or not at all.

    with staged(folder, CheckpointError, nbytes) as stage:
        ...  # write into `stage`; an exception leaves `folder` as it is

A folder that is not there yet appears by one rename. In one that is there, a single file takes its place by one
rename. Several files do so in one of two ways, each safe against a kill at any point:

- The stage gets hard links to the files that stay, and the two folders change places in one step (`renameat2`).
- Where that cannot be done, or would be noticed (see `_can_be_exchanged`), the stage is renamed to `.tfloader.commit`,
  with a list of what is to be moved and removed. From then on the new files count: whoever opens the folder next, to
  read (`finish`) or to write, does what is left of the list.

A process holds a lock on its stage, so that the next writer knows, and removes, what a killed one left.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator

from tfloader.filesystem import appear, exchange, hold, locked, open_file, sync, sync_all

COMMIT = ".tfloader.commit"
JOURNAL = ".tfloader.json"
MAX_JOURNAL_BYTES = 1 << 22
_NO_FILES = {COMMIT, "lost+found"}

Replaces = Callable[[Collection[str]], Iterable[str]]

_open_stages: set[str] = set()


def nothing(names: Collection[str]) -> Iterable[str]:
    """For `staged`: all files stay but those of the same names."""
    return ()


def only_new(names: Collection[str]) -> Iterable[str]:
    """For `staged`: the folder must be empty, or not there."""
    if names:
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
    return ()


@contextlib.contextmanager
def staged(
    folder: str | os.PathLike[str], error: type[Exception], nbytes: int = 0, replaces: Replaces = nothing
) -> Iterator[str]:
    """Gives a folder to fill, whose files become files of `folder` if nothing goes wrong.

    Within a stage that is open already, whose files nobody sees yet, it gives `folder` itself.

    Args:
        folder: made if it is not there, with its parents. A link to a folder is followed; a link in the place of a
            file is replaced, not written through.
        error: what an OSError becomes, with what to do.
        nbytes: about how much will be written.
        replaces: gives, of the names in the folder, those of files that go although the stage has none of their name;
            it may raise. It is asked before anything is written, and again before anything changes.
    """
    shown, folder = os.fspath(folder), _real(folder, error)
    if any(folder == stage or folder.startswith(stage + os.sep) for stage in _open_stages):
        os.makedirs(folder, exist_ok=True)
        yield folder
        return
    try:
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise OSError(errno.ENOTDIR, "it is a file, not a folder")
        parent, name = os.path.split(folder)
        os.makedirs(parent, exist_ok=True)
        _remove_leftovers(parent, name)
        if os.path.isdir(folder):
            _remove_leftovers(folder, "tfloader")
            finish(folder, error)
            replaces(names_in(folder))
        free = shutil.disk_usage(folder if os.path.isdir(folder) else parent).free
        if free < nbytes:
            raise error(
                f"{shown}: {nbytes} bytes are to be written, but only {free} are free. "
                "Make room or choose another disk."
            )
        with _Stage(folder) as stage:
            yield stage.path
            stage.commit(replaces)
    except OSError as reason:
        then = "Nothing there has changed."
        if os.path.lexists(os.path.join(folder, COMMIT)):
            then = f"The new files are whole, in {COMMIT}; the next load or save there puts them in their places."
        raise error(
            f"{shown}: writing failed: {reason.strerror or reason}. Check permissions and free space. {then}"
        ) from reason


def finish(folder: str | os.PathLike[str], error: type[Exception]) -> None:
    """Completes a save that was killed while its files took their places; waits for one that is still running."""
    if not _is_folder(os.path.join(folder, COMMIT)):
        return
    try:
        with locked(os.fspath(folder)):
            _move_in(os.fspath(folder))
    except OSError as reason:
        raise error(
            f"{os.fspath(folder)}: a save was interrupted when its files took their places, and the rest of it failed: "
            f"{reason.strerror or reason}. Open the folder once as somebody who may write there."
        ) from reason


def names_in(folder: str) -> list[str]:
    """The names in a folder, without what belongs to a save that is not finished, or to a new disk."""
    return sorted(name for name in os.listdir(folder) if name not in _NO_FILES and not _is_stage(name, "tfloader"))


class _Stage:
    """The hidden folder, at `path`: in the folder that it is for, or beside it while that is not there."""

    def __init__(self, target: str):
        self.target = target
        self.parent, self.name = os.path.split(target)
        while True:
            inside = os.path.isdir(target)
            with locked(target) if inside else contextlib.nullcontext():
                self.path = _new_name(target, "tfloader") if inside else _new_name(self.parent, self.name)
                os.mkdir(self.path)
            try:
                self.lock = hold(self.path, wait=True)
                return
            except FileNotFoundError:  # taken for a leftover before it was locked
                continue
            except BaseException:
                os.rmdir(self.path)
                raise

    def __enter__(self) -> _Stage:
        _open_stages.add(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        _open_stages.discard(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock is not None:
            os.close(self.lock)

    def _move(self, path: str) -> None:
        os.rename(self.path, path)
        self.path = path

    def commit(self, replaces: Replaces) -> None:
        """Lets everything in it appear in the target."""
        _open_stages.discard(self.path)
        if os.path.dirname(self.path) == self.parent:
            try:
                return appear(self.path, self.target)
            except OSError:  # or another process has made the folder meanwhile
                if not os.path.isdir(self.target):
                    raise
            self._move(_new_name(self.target, "tfloader"))
        sync_all(self.path)
        with locked(self.target):
            _move_in(self.target)
            names, there = sorted(os.listdir(self.path)), names_in(self.target)
            stale = sorted(set(replaces(there)) & set(there) - set(names))
            for name in names:
                if _is_folder(os.path.join(self.target, name)):
                    raise OSError(errno.EISDIR, f"{name} is a folder")
            if len(names) == 1 and not stale:
                appear(os.path.join(self.path, names[0]), os.path.join(self.target, names[0]))
            elif not self._exchange(there, set(there) - set(names) - set(stale)):
                self._write_journal(names, stale)
                os.rename(self.path, os.path.join(self.target, COMMIT))
                sync(self.target)
                _move_in(self.target)

    def _exchange(self, there: Collection[str], kept: Collection[str]) -> bool:
        """Exchanges stage and target; False where that cannot be done, and then nothing has changed."""
        inside = self.path
        try:
            if not self._can_be_exchanged():
                return False
            shutil.copystat(self.target, self.path)
            for name in kept:
                os.link(os.path.join(self.target, name), os.path.join(self.path, name), follow_symlinks=False)
            sync(self.path)
            self._move(_new_name(self.parent, self.name))
            exchange(self.path, self.target)
            try:
                self._bring_along(there, kept)
            except OSError:
                exchange(self.path, self.target)
                raise
        except (OSError, NotImplementedError):
            if self.path != inside:
                self._move(inside)
            return False
        with contextlib.suppress(OSError):
            sync(self.parent)
        return True

    def _bring_along(self, there: Collection[str], kept: Collection[str]) -> None:
        """What others have put into the old folder, now at `path`, since it was listed is linked into the new one."""
        for name in os.listdir(self.path):
            old, new = os.path.join(self.path, name), os.path.join(self.target, name)
            if name not in there or (name in kept and not os.path.samestat(os.lstat(old), os.lstat(new))):
                link = _new_name(self.path, "tfloader")
                os.link(old, link, follow_symlinks=False)
                os.replace(link, new)

    def _can_be_exchanged(self) -> bool:
        """Whether nobody would notice: it is not the current folder, has no subfolders, and no other owner."""
        ours, theirs = os.stat(self.path), os.stat(self.target)
        current = os.path.join(os.path.realpath(os.getcwd()), "")
        with os.scandir(self.target) as entries:
            plain = all(entry.path == self.path or not entry.is_dir(follow_symlinks=False) for entry in entries)
        same_owner = (ours.st_uid, ours.st_gid) == (theirs.st_uid, theirs.st_gid)
        return plain and same_owner and not current.startswith(os.path.join(self.target, ""))

    def _write_journal(self, put: Collection[str], remove: Collection[str]) -> None:
        with open(os.path.join(self.path, JOURNAL), "x", encoding="utf-8") as file:
            json.dump({"put": list(put), "remove": list(remove)}, file)
        sync_all(self.path)


def _move_in(folder: str) -> None:
    """Does what is left of a journal, if there is one; the folder is locked."""
    commit = os.path.join(folder, COMMIT)
    if not _is_folder(commit):
        return
    put, remove = _read_journal(os.path.join(commit, JOURNAL))
    for name in remove:
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(folder, name))
    for name in put:
        with contextlib.suppress(FileNotFoundError):  # moved already
            os.replace(os.path.join(commit, name), os.path.join(folder, name))
    sync(folder)
    done = _new_name(folder, "tfloader")
    os.rename(commit, done)
    shutil.rmtree(done, ignore_errors=True)


def _read_journal(path: str) -> tuple[list[str], list[str]]:
    """The names to put and to remove; they may come from an untrusted folder, so each must be of a file in it."""
    try:
        if not os.path.isfile(path):
            raise ValueError
        with open_file(path) as file:
            journal = json.loads(file.read(MAX_JOURNAL_BYTES))
        put, remove = journal["put"], journal["remove"]
        if not all(name not in ("", ".", "..") and os.path.basename(name) == name for name in [*put, *remove]):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as reason:
        raise OSError(errno.EINVAL, f"{path} is damaged; get the folder again") from reason
    return put, remove


def _remove_leftovers(parent: str, name: str) -> None:
    """Removes what killed writers left."""
    for found in os.listdir(parent):
        path = os.path.join(parent, found)
        if _is_stage(found, name) and _is_folder(path):
            with contextlib.suppress(OSError):
                lock = hold(path, wait=False)
                if lock is not None:
                    shutil.rmtree(path, ignore_errors=True)
                    os.close(lock)


def _new_name(parent: str, name: str) -> str:
    return os.path.join(parent, f".{name}.{secrets.token_hex(4)}.part")


def _is_stage(found: str, name: str) -> bool:
    return found.startswith(f".{name}.") and found.endswith(".part")


def _is_folder(path: str | os.PathLike[str]) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _real(folder: str | os.PathLike[str], error: type[Exception]) -> str:
    try:
        if os.fspath(folder) and os.fsencode(folder):
            return os.path.realpath(folder)
    except ValueError:  # NUL, or half of a surrogate pair
        pass
    raise error(f"{os.fspath(folder)!r}: not the path of a folder. Give one such as 'my-model'.")
