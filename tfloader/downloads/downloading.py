"""`download`: public releases, repositories of hubs, archives and files, whole and checked or not at all.

A folder is fetched into `FOLDER.partial`, where an interrupted run is continued, and renamed when everything in it
is whole. Its `.download.json` says where it is from, and size, time and sha256 of each file; beside a single file NAME
stands a `.NAME.download.json`. What is there already is returned only if it is what that says.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from tfloader.border import public
from tfloader.downloads.archives import is_archive, name_problem, stem, unpack
from tfloader.downloads.catalogue import CATALOGUE, Written, published
from tfloader.downloads.hubs import GOOGLE_STORAGE, HUGGING_FACE, google_storage, hugging_face
from tfloader.downloads.transfer import RemoteFile, digest, fetch
from tfloader.downloads.web import Web, check_address, shown
from tfloader.errors import DownloadError
from tfloader.files import read_json, show, write_bytes, write_json
from tfloader.filesystem import appear, locked
from tfloader.staging import only_new, staged
from tfloader.suggestions import did_you_mean

RECORD = ".download.json"


@public
def download(
    source: str,
    output: str | os.PathLike[str] | None = None,
    *,
    sha256: str | None = None,
    mirror: str | None = None,
    token: str | None = None,
    offline: bool | None = None,
    allow_pickle: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Downloads a checkpoint and returns its path, which `load` takes.

    What is there already from the same source is not fetched again, nor written to: a file whose size or time is not
    as downloaded, or with `sha256` every file, is read and compared. An interrupted download resumes. Two processes
    that want the same do not disturb each other: the second waits for the first.

    Args:
        source: a name in `tfloader.downloads.CATALOGUE` ("_" and "." are as good as "-" in it); "hf:owner/name" or
            "hf:owner/name@revision"; "gs://bucket/folder" with a TensorFlow checkpoint; the address of an archive (zip,
            tar, tar.gz), which is unpacked, or of any other file.
        output: the folder that will hold the checkpoint; for a file that is no archive, the folder to put it in.
            Default: a folder of the source's name, or for such a file the current one.
        sha256: what the file at an address must have, in hexadecimal.
        mirror: an address to use in place of https://huggingface.co (default: the environment's HF_ENDPOINT) or
            https://storage.googleapis.com.
        token: for gated models. Sent to the hub (or its mirror, or the host of the address) and nowhere else.
            Default: the environment's HF_TOKEN, but for https://huggingface.co only.
        offline: whether to make no requests, and give only what is there. Default: the environment's HF_HUB_OFFLINE.
        allow_pickle: whether a repository may be taken that has weights only as `pytorch_model.bin`.
        sleep: waits the given seconds before another attempt.

    Raises:
        DownloadError: it cannot be fetched, is not what was published, or cannot be unpacked safely.
    """
    source = published(source) or source
    asked = _Request(source, sha256, mirror, token, allow_pickle, sleep)
    parts = asked.parts()
    if offline is None:
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    only = parts[0]
    if source not in CATALOGUE and isinstance(only, RemoteFile) and not is_archive(only.path):
        return _file(only, os.fspath(output or "."), asked, offline)
    folder = os.path.normpath(os.fspath(output or _default_folder(source)))
    with _missing(folder, offline) as missing:
        if missing:
            _folder(asked, parts, folder)
    return _checked(folder, os.path.join(folder, RECORD), asked)


class _Request:
    """What the user asked for, and how to find out which files that means."""

    def __init__(
        self, source: str, sha256: str | None, mirror: str | None, token: str | None, pickle: bool, sleep: Any
    ):
        if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
            raise DownloadError(f"sha256: expected 64 hexadecimal digits, found {show(sha256)}.")
        self.source, self.sha256, self.pickle, self.sleep = source, sha256 and sha256.lower(), pickle, sleep
        self.mirror, self.token = mirror.rstrip("/") if mirror else None, token
        if mirror:
            check_address(mirror)

    def parts(self) -> Sequence[str | RemoteFile | Written]:
        if self.source.startswith(("http://", "https://")):
            check_address(self.source)
            name = _file_name(self.source)
            if name_problem(name):
                raise DownloadError(f"{shown(self.source)}: the address does not end in the name of a file.")
            return (RemoteFile(self.source, name, None, self.sha256 and f"sha256:{self.sha256}"),)
        if self.sha256:
            raise DownloadError(f"{self.source}: a sha256 can be given for the address of one file only.")
        if self.source in CATALOGUE:
            return CATALOGUE[self.source].parts
        if self.source.startswith(("hf:", "gs://")):
            return (self.source,)
        raise DownloadError(
            f"{self.source!r} is not the name of a release{did_you_mean(self.source, CATALOGUE) or '.'} `tfloader "
            "download` lists them all; others are written hf:owner/name, gs://bucket/folder or https://..."
        )

    def identity(self) -> dict[str, str]:
        """Identifies the source without writing down a secret that may be in the query of an address."""
        seen = shown(self.source) if self.source.startswith("http") else self.source
        return {"source": seen, "identity": hashlib.sha256(self.source.encode()).hexdigest()}

    def files(self, part: str | RemoteFile) -> tuple[Web, list[RemoteFile]]:
        """The files of a part, and what to fetch them with."""
        if isinstance(part, RemoteFile):
            own = part.url == self.source  # a token is not for whatever hosts a release happens to use
            return Web(self.token if own else None, part.url or "", self.sleep), [part]
        if part.startswith("hf:"):
            endpoint = self.mirror or os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUGGING_FACE
            check_address(endpoint)
            token = self.token or (os.environ.get("HF_TOKEN", "").strip() if endpoint == HUGGING_FACE else None)
            web = Web(token or None, endpoint, self.sleep)
            return web, hugging_face(part.removeprefix("hf:"), web, endpoint, self.pickle)
        if part.startswith("gs://"):
            endpoint = self.mirror or GOOGLE_STORAGE
            web = Web(self.token, endpoint, self.sleep)
            return web, google_storage(part, web, endpoint)
        return Web(sleep=self.sleep), [RemoteFile(part, _file_name(part))]


def _file(file: RemoteFile, folder: str, asked: _Request, offline: bool) -> str:
    """A file that is no archive."""
    target, record = os.path.join(folder, file.path), os.path.join(folder, f".{file.path}{RECORD}")
    with _missing(target, offline) as missing:
        if missing:
            fetch(file, folder, asked.files(file)[0], lambda whole: _record(record, asked, {file.path: whole}))
    return fetch(file, folder, asked.files(file)[0]) if asked.sha256 else _checked(target, record, asked)


@contextlib.contextmanager
def _missing(path: str, offline: bool) -> Iterator[bool]:
    """Whether a file or folder is still to be made; meanwhile no other process makes it."""
    if os.path.lexists(path):
        yield False
        return
    if offline:
        raise DownloadError(f"{path}: not there, and nothing is downloaded offline (HF_HUB_OFFLINE).")
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with locked(f"{path}.lock", create=True):
        yield not os.path.lexists(path)


def _folder(asked: _Request, parts: Sequence[str | RemoteFile | Written], folder: str) -> None:
    """Makes the folder, which does not exist."""
    partial = f"{folder}.partial"
    listed = [asked.files(part) for part in parts if not isinstance(part, Written)]
    files = [file for _, found in listed for file in found]
    os.makedirs(partial, exist_ok=True)
    _forget_others(partial, files)
    for web, found in listed:
        for file in found:
            fetch(file, partial, web)
    for part in parts:
        if isinstance(part, Written):
            write_bytes(os.path.join(partial, part.path), part.text.encode(), DownloadError)
    if len(files) == 1 and is_archive(files[0].path):
        with staged(folder, DownloadError, replaces=only_new) as stage:
            unpack(os.path.join(partial, files[0].path), stage)
            _record(os.path.join(stage, RECORD), asked, _files(stage))
        shutil.rmtree(partial, ignore_errors=True)
    else:
        _record(os.path.join(partial, RECORD), asked, _files(partial))
        appear(partial, folder)


def _record(record: str, asked: _Request, files: Mapping[str, str]) -> None:
    """Notes what was asked for, and of each file (name -> path) by what it is known again."""
    noted = {name: [*_stat(path), digest(path, "sha256")] for name, path in files.items()}
    write_json(record, asked.identity() | {"sha256": asked.sha256, "files": noted}, DownloadError)


def _forget_others(partial: str, files: Sequence[RemoteFile]) -> None:
    """Drops what an earlier run fetched that is not what this one wants, and notes what this one wants."""
    path = os.path.join(partial, RECORD)
    wanted = {file.path: file.identity for file in files}
    noted = read_json(path, DownloadError).get("wanted") if os.path.exists(path) else None
    for name, identity in noted.items() if isinstance(noted, dict) else ():
        if wanted.get(name) != identity and not name_problem(name):
            for suffix in ("", ".partial", ".partial.json"):
                if os.path.exists(os.path.join(partial, name + suffix)):
                    os.remove(os.path.join(partial, name + suffix))
    write_json(path, {"wanted": wanted}, DownloadError)


def _checked(path: str, record: str, asked: _Request) -> str:
    """The folder or file, if it is what such a download has left."""
    if not os.path.isfile(record):
        raise DownloadError(
            f"{path}: it is there already, and was not downloaded by tfloader. Choose another --output."
        )
    noted, wanted = read_json(record, DownloadError), asked.identity()
    if noted.get("identity") != wanted["identity"]:
        there = f"it holds {noted.get('source')}, not {wanted['source']}"
        raise DownloadError(f"{path}: {there}. Choose another --output.")
    if asked.sha256 and noted.get("sha256") != asked.sha256:
        raise DownloadError(f"{path}: it was not downloaded with this sha256. Remove it, then run again.")
    files = noted.get("files")
    if not isinstance(files, dict):
        raise DownloadError(f"{record}: not as tfloader writes it. Remove {path}, then run again.")
    folder = os.path.dirname(record)
    changed = [name for name, note in files.items() if not _is(os.path.join(folder, name), note, bool(asked.sha256))]
    if changed:
        raise DownloadError(
            f"{path}: no longer as downloaded: {', '.join(sorted(changed)[:5])}. Remove it, then run again."
        )
    return path


def _is(path: str, note: Any, certainly: bool) -> bool:
    """Whether a file is the one that `_record` noted; a file of the same size and time need be read to be certain."""
    if not isinstance(note, list) or len(note) != 3 or not os.path.isfile(path):
        return False
    found = _stat(path)
    return found[0] == note[0] and ((found == note[:2] and not certainly) or digest(path, "sha256") == note[2])


def _stat(path: str) -> list[int]:
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


def _files(folder: str) -> dict[str, str]:
    """Path below the folder -> path, without records."""
    paths = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names if name != RECORD]
    return {os.path.relpath(path, folder).replace(os.sep, "/"): path for path in sorted(paths)}


def _file_name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _default_folder(source: str) -> str:
    plain = _file_name(source.rstrip("/")) if "://" in source else source.removeprefix("hf:").partition("@")[0]
    name = stem(plain)
    if name_problem(name):
        raise DownloadError(f"{source}: choose a folder with --output.")
    return name
