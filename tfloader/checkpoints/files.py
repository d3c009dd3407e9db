"""What a file really is, told from its first bytes, so that an error can say it.

Most broken checkpoints are not subtly broken: they are a Git LFS pointer, a web page, an archive that was
not unpacked, or a good file under another format's name.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Iterator

from tfloader.checkpoints.table import TABLE_MAGIC
from tfloader.errors import CheckpointError
from tfloader.files import Bounded
from tfloader.filesystem import open_file

MAX_JSON_BYTES = 8 * 2**20  # of 50,000 tensors; parsed, JSON takes up to 25 times its size

_AGAIN = "Download it again and compare the size with the publisher's."
_DESCRIPTIONS = {
    # kind: (what it is, what to do about it)
    "empty": ("an empty file (0 bytes)", _AGAIN),
    "git-lfs": (
        "a Git LFS pointer, a small text that stands for the real file",
        "Run `git lfs pull` in the repository that it came from, or download the file itself.",
    ),
    "html": ("a web page (HTML or XML), not weights", "Open it in a browser to see what it says; then download again."),
    "json": ("JSON text, not weights", "If it is an error message saved under this name, download again."),
    "safetensors": ("a safetensors file", "Rename it to end in .safetensors."),
    "hdf5": ("an HDF5 file", "Rename it to end in .h5."),
    "torch": ("a PyTorch file", "Rename it to end in .bin."),
    "torch-legacy": ("a PyTorch file (in the format before 1.6) or another pickle", "Rename it to end in .bin."),
    "npz": ("a NumPy .npz archive", "Load it with numpy and pass a dict of its arrays."),
    "keras": ("a .keras archive", "Load it with keras.saving.load_model, or unpack it and open model.weights.h5."),
    "zip": ("a zip archive", "Unpack it and open the folder that comes out."),
    "broken-zip": ("a zip archive that is cut short or damaged", _AGAIN),
    "gzip": ("a gzip archive", "Unpack it and open what comes out."),
    "tar": ("a tar archive", "Unpack it and open what comes out."),
    "gguf": ("a GGUF file", "Look for the same model as safetensors."),
    "tf-index": (
        "a TensorFlow checkpoint index (or a checkpoint of before 2016, which has no other file)",
        "Rename it to end in .index, next to its .data-00000-of-00001 file.",
    ),
}


def sniff(path: str) -> str:
    """The kind of content that `path` holds, a key of the descriptions above, or "unknown"."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(512)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    starts = {
        b"version https://git-lfs": "git-lfs",
        b"\x89HDF\r\n\x1a\n": "hdf5",
        b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9": "torch-legacy",
        b"\x1f\x8b": "gzip",
        b"GGUF": "gguf",
    }
    if size == 0:
        return "empty"
    if head[8:9] == b"{" and head[7] == 0:
        return "safetensors"
    for start, kind in starts.items():
        if head.startswith(start):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    if head[257:262] == b"ustar":
        return "tar"
    if tail == TABLE_MAGIC:
        return "tf-index"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "html"
    return "json" if text.startswith((b"{", b"[")) else "unknown"


def _kind_of_zip(path: str) -> str:
    try:
        with open_file(path) as file, zipfile.ZipFile(Bounded(file)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "broken-zip"
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return "torch"
    if "model.weights.h5" in names:
        return "keras"
    return "npz" if names and all(name.endswith(".npy") for name in names) else "zip"


def describe(kind: str) -> str:
    """What the kind is and what to do about it, as the middle of a sentence and a sentence after it."""
    what, advice = _DESCRIPTIONS.get(kind, ("a file of no known format", _AGAIN))
    return f"{what}. {advice}"


def expect(path: str, expected: str, *kinds: str) -> str:
    """Checks that `path` is a readable file which is not recognisably something else; gives its kind.

    "unknown" passes: the container's own parser can say more about it.

    Raises:
        CheckpointError: the file is missing, a folder, unreadable, or recognised as not one of `kinds`.
    """
    with reading(path):
        if os.path.isdir(path):
            raise CheckpointError(f"{path}: this is a folder; expected {expected}.")
        kind = sniff(path)
    if kind not in (*kinds, "unknown"):
        raise CheckpointError(f"{path}: expected {expected}, but this is {describe(kind)}")
    return kind


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns what the operating system says of `path` into a CheckpointError."""
    try:
        yield
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such file. Check the path, or download it again.") from error
    except PermissionError as error:
        raise CheckpointError(f"{path}: no permission to read it. Change its mode or owner, or copy it.") from error
    except OSError as error:
        reason = f"{error.strerror or error}. Check the path and the disk"
        raise CheckpointError(f"{path}: reading failed: {reason}, or copy it again.") from error
