"""One file: resumed where that is safe, checked against what was published, and there as a whole or not at all.

The bytes go to `NAME.partial`; beside it `NAME.partial.json` says of which version they are. A later run resumes
only the same version (the server's strong ETag, in If-Range) or where a checksum will tell; else it starts again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tfloader.checkpoints.files import sniff
from tfloader.downloads.web import TemporaryError, Web, body, is_compressed, shown
from tfloader.errors import DownloadError
from tfloader.files import write_json
from tfloader.filesystem import appear, open_file
from tfloader.progress import progress_bar

# What servers send in place of a file.
WRONG_CONTENT = {
    "html": "it is a web page, not the file (a login, a limit of downloads, or an error)",
    "json": "it is JSON text, not the file: probably an error message",
    "git-lfs": "it is a Git LFS pointer, not the file itself",
    "empty": "it is empty",
}
HTML = (".html", ".htm")
BINARY = (".safetensors", ".h5", ".bin", ".model", ".index", ".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class RemoteFile:
    """A file as it is published."""

    url: str | None  # None if it can only be downloaded by hand, from `page`
    path: str  # its name in the folder that it goes to, "/" between folders
    size: int | None = None  # in bytes, if published
    checksum: str | None = None  # "sha256:...", "md5:..." or "git:..." (git's SHA-1), in hexadecimal, if published
    page: str = ""  # where a person finds it

    @property
    def identity(self) -> str:
        """The same for the same content, wherever it comes from; does not give away a secret in the address."""
        return hashlib.sha256((self.checksum or self.url or self.page).encode()).hexdigest()


def fetch(file: RemoteFile, folder: str, web: Web, note: Callable[[str], None] = lambda whole: None) -> str:
    """Fetches a file into an existing folder, if it is not there yet, and returns its path.

    `note` is called with the path of the whole file just before it gets its name.

    Raises:
        DownloadError: it cannot be fetched, or is not what was published. What was received is kept only if it may be
            the beginning of the right file.
    """
    target = os.path.join(folder, *file.path.split("/"))
    if os.path.exists(target):
        problem = mismatch(target, file)
        if not problem:
            return target
        raise DownloadError(f"{target}: {problem}. Remove it, then run again.")
    if file.url is None:
        raise DownloadError(
            f"{os.path.basename(target)} can be downloaded by hand only, from {file.page}. Save it as {target}, "
            "then run again."
        )
    os.makedirs(os.path.dirname(target), exist_ok=True)
    _Transfer(file, target, web, note).run()
    return target


def mismatch(path: str, file: RemoteFile) -> str:
    """What is wrong with a file that is there; empty if nothing is."""
    size = os.path.getsize(path)
    if file.size is not None and size != file.size:
        return f"it has {size} bytes, but {file.size} were published"
    if file.checksum:
        algorithm, _, expected = file.checksum.partition(":")
        found = digest(path, algorithm)
        if found != expected.lower():
            return f"its {algorithm} is {found}, but {expected} was published"
    kind = sniff(path)
    wanted = {"html": file.path.endswith(HTML), "json": not file.path.endswith(BINARY), "empty": file.size == 0}
    return "" if file.checksum or wanted.get(kind) else WRONG_CONTENT.get(kind, "")


def digest(path: str, algorithm: str) -> str:
    """The checksum of a file in hexadecimal; "git" is SHA-1 after a header with the size."""
    state = hashlib.new("sha1" if algorithm == "git" else algorithm)
    if algorithm == "git":
        state.update(b"blob %d\0" % os.path.getsize(path))
    with open_file(path) as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()


class _Transfer:
    """The attempts at one file."""

    def __init__(self, file: RemoteFile, target: str, web: Web, note: Callable[[str], None]):
        self.file, self.target, self.web, self.note = file, target, web, note
        self.url = file.url or ""
        self.partial, self.state = f"{target}.partial", f"{target}.partial.json"
        self.total = file.size
        self.resumed = False

    def run(self) -> None:
        with progress_bar(os.path.basename(self.target), self.total, self.have()) as bar:
            self.web.retry(self.url, lambda: self.attempt(bar), lambda: self.resumable()[0])
        problem = mismatch(self.partial, self.file)
        if problem and self.resumed:  # the beginning was of something else
            self.discard()
            return self.run()
        if problem:
            self.discard()
            raise DownloadError(f"{shown(self.url)}: what came is not what was published: {problem}.")
        self.note(self.partial)
        appear(self.partial, self.target)
        self.discard()

    def have(self) -> int:
        return os.path.getsize(self.partial) if os.path.exists(self.partial) else 0

    def discard(self) -> None:
        for path in (self.partial, self.state):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)

    def attempt(self, bar: Any) -> None:
        have, version = self.resumable()
        if have and have == self.total:
            return
        headers = {}
        if have:
            headers = {"Range": f"bytes={have}-"} | ({"If-Range": version} if version else {})
        with self.web.get(self.url, headers, also=(416,)) as response:
            continued = response.status_code == 206 and self.continues(response, have, version)
            if not continued and response.status_code != 200:
                self.discard()
                raise TemporaryError("the server sent another part of the file than was asked for")
            start = have if continued else 0
            self.check_kind(response)
            self.check_length(response, start)
            self.resumed = bool(start)
            bar.reset(self.total)
            bar.update(start)
            try:
                if not start:
                    note = {"etag": response.headers.get("ETag", ""), "size": self.total}
                    write_json(self.state, {"identity": self.file.identity, **note}, DownloadError)
                with open(self.partial, "ab" if start else "wb") as file:
                    for piece in body(response):
                        file.write(piece)
                        bar.update(len(piece))
            except OSError as error:
                raise DownloadError(
                    f"{self.partial}: cannot be written ({error.strerror or error}). Make room, then run again: what "
                    "has come is kept."
                ) from error
        if self.total is not None and self.have() != self.total:
            if self.have() > self.total:
                self.discard()
            raise TemporaryError(f"the connection ended after {self.have()} of {self.total} bytes")

    def resumable(self) -> tuple[int, str]:
        """How many bytes of the partial file can be built on, and the ETag of their version."""
        have = self.have()
        noted = {}
        with contextlib.suppress(OSError, ValueError), open_file(self.state) as file:
            noted = json.load(file)
        known = isinstance(noted, dict) and noted.get("identity") == self.file.identity
        version = noted["etag"] if known and _is_strong(noted.get("etag")) else ""
        if not have or not known or (not version and not self.file.checksum):
            return 0, ""
        if self.total is None and isinstance(noted.get("size"), int):
            self.total = noted["size"]
        if self.total is not None and have > self.total:
            return 0, ""
        return have, version

    def continues(self, response: Any, have: int, version: str) -> bool:
        """Whether a partial answer is the missing end of what is there."""
        found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != have or not have:
            return False
        if version and response.headers.get("ETag", version) != version:
            return False
        return found[2] == "*" or self.total is None or int(found[2]) == self.total

    def check_kind(self, response: Any) -> None:
        if is_compressed(response):
            raise DownloadError(f"{shown(self.url)}: the server compresses the file although it was asked not to.")
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind == "text/html" and not self.file.path.endswith(HTML):
            raise DownloadError(
                f"{shown(self.url)}: the server sent a web page in place of the file (a login, a limit of "
                f"downloads, or an error). Open {self.file.page or 'the address'} in a browser. If it gives you the "
                f"file, save it as {self.target}, then run again."
            )

    def check_length(self, response: Any, start: int) -> None:
        """Sets the total size and sees to it that the rest has room; what cannot be checked later is refused."""
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if re.fullmatch(r"\d{1,18}", length) else None
        expected = self.file.size
        if total is not None and expected is not None and total != expected:
            raise DownloadError(
                f"{shown(self.url)}: the server announces {total} bytes, but {expected} were published."
            )
        self.total = expected if expected is not None else total
        ends_visibly = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if self.total is None and not ends_visibly and not self.file.checksum:
            raise DownloadError(
                f"{shown(self.url)}: the server does not say how long the file is, so it cannot be told "
                "whether it is whole. Give its checksum."
            )
        free = shutil.disk_usage(os.path.dirname(self.target)).free
        if self.total is not None and self.total - start > free:
            raise DownloadError(
                f"{self.target}: {self.total - start} more bytes are needed, but only {free} are free on this disk."
            )


def _is_strong(etag: Any) -> bool:
    return isinstance(etag, str) and bool(re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag))
