"""Unpacks untrusted zip, tar and tar.gz files: regular files with harmless names, within limits, all or nothing.

Refused are names that leave the folder, links, devices, encryption, two entries of one name, and archives that
unpack to more than they may: in entries, in bytes, or in proportion to their own size.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import secrets
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from tfloader.errors import DownloadError, listing
from tfloader.files import Bounded, show
from tfloader.filesystem import open_file
from tfloader.staging import only_new, staged

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_ENTRIES = 10_000
MAX_RATIO = 100  # weights hardly shrink at all, vocabularies to a third
SMALL = 1 << 20  # bytes that any archive may unpack to, whatever its proportion
PIECE = 1 << 20


def is_archive(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def stem(path: str) -> str:
    """The name without the suffix of an archive."""
    name = path.rpartition("/")[2]
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def unpack(archive: str, folder: str, max_bytes: int | None = None) -> str:
    """Unpacks an archive into a new folder and returns its path.

    If everything in the archive lies in one folder, that folder's content is what is unpacked.

    Args:
        archive: a zip, tar or tar.gz file.
        folder: must not exist yet, or be empty.
        max_bytes: at most so much may come out; default: what is free on the disk.

    Raises:
        DownloadError: naming everything that is wrong; `folder` is then as it was.
    """
    beside = os.path.dirname(os.path.abspath(folder))
    free = shutil.disk_usage(beside).free
    limit = min(free if max_bytes is None else max_bytes, max(SMALL, MAX_RATIO * os.path.getsize(archive)))
    with staged(folder, DownloadError, replaces=only_new) as stage:
        content = os.path.join(stage, secrets.token_hex(8))
        os.mkdir(content)
        try:
            _extract(archive, content, limit)
        except DownloadError:
            raise
        except Exception as error:  # whatever the standard library makes of damage, or the system of a full disk
            raise DownloadError(
                f"{archive}: cannot be unpacked ({error}). Is it cut short? Download it again."
            ) from error
        inside = os.listdir(content)
        alone = os.path.join(content, inside[0]) if len(inside) == 1 else ""
        top = alone if os.path.isdir(alone) else content
        for name in os.listdir(top):
            os.replace(os.path.join(top, name), os.path.join(stage, name))
        shutil.rmtree(content)
    return folder


@dataclass
class _Entry:
    """A member of an archive, whatever its format."""

    name: str
    size: int
    is_folder: bool
    problem: str
    source: Any


def name_problem(name: str) -> str:
    """Why an untrusted file must not have this relative name; empty if it may."""
    parts = name.split("/")
    if not name or name.startswith("/"):
        return "not a relative name"
    if any(part in ("", ".", "..") for part in parts):
        return "its name leads out of the folder, or is ambiguous"
    if any(c in '\\:*?"<>|' or not c.isprintable() for c in name):
        return "its name has a character that not every system allows"
    if any(part != part.strip(" ") or part.endswith(".") or len(part.encode()) > 255 for part in parts):
        return "its name is not allowed on every system"
    return ""


def _extract(archive: str, folder: str, limit: int) -> None:
    opened = _zip(archive) if zipfile.is_zipfile(archive) else _tar(archive, limit)
    total, names, found, problems = 0, set(), [], []
    with opened as (entries, read):
        for entry in entries:
            if entry.name.startswith("__MACOSX/") or entry.name.rpartition("/")[2] == ".DS_Store":  # what macOS adds
                continue
            total += entry.size
            if len(found) == MAX_ENTRIES:
                problems.append(f"more than {MAX_ENTRIES} entries")
                break
            if total > limit:
                problems.append(
                    f"it unpacks to more than {limit} bytes, which is too much for its size or for the disk"
                )
                break
            name = entry.name.rstrip("/")
            twice = name.casefold() in names and not entry.is_folder
            if problem := name_problem(name) or entry.problem or ("comes twice" if twice else ""):
                problems.append(f"{show(entry.name)}: {problem}")
            names.add(name.casefold())
            found.append(entry)
        if problems:
            raise DownloadError(f"{archive}: not unpacked, because it is not safe:\n{listing(problems)}")
        if not any(not entry.is_folder for entry in found):
            raise DownloadError(f"{archive}: there is no file in it.")
        for entry in found:
            path = os.path.join(folder, *entry.name.rstrip("/").split("/"))
            os.makedirs(path if entry.is_folder else os.path.dirname(path), exist_ok=True)
            if not entry.is_folder:
                with read(entry.source) as source, open(path, "xb") as target:
                    _copy(archive, entry, source, target)


def _copy(archive: str, entry: _Entry, source: IO[bytes], target: IO[bytes]) -> None:
    """Copies what the archive announced; more or less than that is an error."""
    left = entry.size
    while piece := source.read(min(PIECE, left + 1)):
        left -= len(piece)
        if left < 0:
            break
        target.write(piece)
    if left:
        raise DownloadError(f"{archive}: {show(entry.name)} is not as long as the archive says. Download it again.")


@contextlib.contextmanager
def _zip(archive: str) -> Iterator[Any]:
    with open_file(archive) as raw, zipfile.ZipFile(Bounded(raw)) as file:  # type: ignore[arg-type]
        yield map(_zip_entry, file.infolist()), file.open


def _zip_entry(info: zipfile.ZipInfo) -> _Entry:
    kind = stat.S_IFMT(info.external_attr >> 16)
    problem = ""
    if info.flag_bits & 1:
        problem = "encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "compressed in a way that is not used for models"
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "a link or a device, not a file"
    elif "\0" in info.orig_filename:
        problem = "its name holds a NUL"
    return _Entry(info.filename, info.file_size, info.is_dir(), problem, info)


@contextlib.contextmanager
def _tar(archive: str, limit: int) -> Iterator[Any]:
    with open_file(archive) as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content = gzip.GzipFile(fileobj=raw) if compressed else raw
        # The headers come on top of the content.
        bounded = Bounded(content, limit + MAX_ENTRIES * 2048 if compressed else None)
        with tarfile.open(fileobj=bounded, mode="r:") as file:  # type: ignore[call-overload]
            yield _tar_entries(file, bounded), file.extractfile


def _tar_entries(file: tarfile.TarFile, content: Any) -> Iterator[_Entry]:
    yield from map(_tar_entry, file)
    # tarfile takes a damaged header for the end, and does not read as far as gzip's checksum.
    content.seek(file.offset)
    rest = content.read(tarfile.BLOCKSIZE)
    whole = bool(rest)
    while rest and whole:
        whole, rest = not rest.strip(b"\0"), content.read(PIECE)
    if not whole:
        raise tarfile.ReadError("something other than the end stands behind its last file")


def _tar_entry(info: tarfile.TarInfo) -> _Entry:
    ordinary = (info.isreg() and not info.issparse()) or info.isdir()
    return _Entry(info.name, info.size, info.isdir(), "" if ordinary else "a link or a device, not a file", info)
