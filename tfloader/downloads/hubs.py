"""What a repository of Hugging Face or a folder of Google Cloud Storage holds that tfloader reads.

Both are asked once for a list with sizes and checksums, and every address in it is pinned to the version that was
listed, so that a publisher who changes files meanwhile cannot mix two versions.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Any, TypeGuard
from urllib.parse import quote

from tfloader.downloads.archives import name_problem
from tfloader.downloads.transfer import RemoteFile
from tfloader.downloads.web import Web
from tfloader.errors import DownloadError, listing
from tfloader.files import show

HUGGING_FACE = "https://huggingface.co"
GOOGLE_STORAGE = "https://storage.googleapis.com"

# The containers of weights in the order in which `load` prefers them; a pickle is a program, and needs consent.
WEIGHTS = (r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json", r"tf_model\.h5")
PICKLES = r"pytorch_model(-\d{5}-of-\d{5})?\.bin|pytorch_model\.bin\.index\.json"
BESIDE_WEIGHTS = (
    r"config\.json|generation_config\.json|vocab\.(txt|json|bpe)|encoder\.json|merges\.txt|\w*\.model|tokenizer\.json|"
    r"tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json"
)
# A TensorFlow checkpoint and what lies beside it; `.meta` is never needed.
TENSORFLOW = r"(?P<prefix>.*\.ckpt-(?P<step>\d+))\.(index|data-\d{5}-of-\d{5})"
BESIDE_TENSORFLOW = r"checkpoint|.*\.gin|\w*config\w*\.json|hparams\.json|encoder\.json|vocab\.(txt|bpe)|\w*\.model"
MAX_PAGES = 100


def hugging_face(
    repository: str, web: Web, endpoint: str = HUGGING_FACE, allow_pickle: bool = False
) -> list[RemoteFile]:
    """The files of "owner/name" or "owner/name@revision" that `tfloader.load` reads.

    Of several containers of the same weights the best is taken.
    """
    name, at, revision = repository.partition("@")
    if not re.fullmatch(r"([\w.-]{1,100}/)?[\w.-]{1,100}", name) or ".." in name or (at and not revision):
        raise DownloadError(f"hf:{repository}: expected hf:owner/name or hf:owner/name@revision.")
    listed = f"{endpoint}/api/models/{name}/revision/{quote(revision or 'main', safe='')}?blobs=true"
    answer = web.json(listed)
    commit, siblings = answer.get("sha"), answer.get("siblings")
    if not re.fullmatch(r"[0-9a-f]{40}", str(commit)) or not _are_objects(siblings):
        raise DownloadError(f"hf:{repository}: the list of its files is not as Hugging Face gives it.")
    files = {}
    for item in siblings:
        path, lfs = str(item.get("rfilename")), item.get("lfs")
        lfs = lfs if isinstance(lfs, dict) else {}
        blob, sha256 = item.get("blobId"), lfs.get("sha256")
        checksum = _checksum("sha256", sha256, 64) or ("" if lfs else _checksum("git", blob, 40))
        url = f"{endpoint}/{name}/resolve/{commit}/{quote(path, errors='replace')}"
        files[path] = RemoteFile(url, path, _size(item.get("size")), checksum or None, f"{HUGGING_FACE}/{name}")
    containers = [*WEIGHTS, PICKLES] if allow_pickle else WEIGHTS
    weights = next(filter(None, (_matching(files, container) for container in containers)), [])
    if not weights:
        pickles = _matching(files, PICKLES)
        raise DownloadError(
            f"hf:{repository}: its only weights are {', '.join(show(path) for path in pickles[:3])}, Python pickles. "
            "tfloader reads them as data and runs nothing in them; --allow-pickle fetches them."
            if pickles
            else f"hf:{repository}: there are no weights that tfloader reads (safetensors or tf_model.h5)."
        )
    return _checked(f"hf:{repository}", [files[path] for path in [*_matching(files, BESIDE_WEIGHTS), *weights]])


def google_storage(address: str, web: Web, endpoint: str = GOOGLE_STORAGE) -> list[RemoteFile]:
    """The newest TensorFlow checkpoint in "gs://bucket/folder", or the one file "gs://bucket/folder/file"."""
    bucket, _, folder = address.removeprefix("gs://").strip("/").partition("/")
    if not re.fullmatch(r"[a-z0-9._-]{3,63}", bucket) or not folder or name_problem(folder):
        raise DownloadError(f"{address}: expected gs://bucket/folder.")
    objects: list[dict[str, Any]] = []
    page = ""
    for _ in range(MAX_PAGES):
        query = f"prefix={quote(folder, safe='')}&fields=nextPageToken,items(name,size,md5Hash,generation)"
        answer = web.json(f"{endpoint}/storage/v1/b/{bucket}/o?{query}" + (f"&pageToken={page}" if page else ""))
        items = answer.get("items", [])
        if not _are_objects(items):
            raise DownloadError(f"{address}: the list of its files is not as Google Cloud Storage gives it.")
        objects += items
        page = quote(str(answer.get("nextPageToken", "")), safe="")
        if not page:
            break
    files = {}
    for item in objects:
        name = str(item.get("name"))
        path = name.rpartition("/")[2] if name == folder else name.removeprefix(folder + "/")
        url = f"{endpoint}/{bucket}/{quote(name, errors='replace')}"
        generation = str(item.get("generation"))
        url += f"?generation={generation}" if generation.isdecimal() else ""
        if name == folder or (name.startswith(folder + "/") and "/" not in path):
            files[path] = RemoteFile(url, path, _size(item.get("size")), _md5(item.get("md5Hash")), address)
    if list(files) == [folder.rpartition("/")[2]]:
        return _checked(address, list(files.values()))
    found = [match for path in files if (match := re.fullmatch(TENSORFLOW, path))]
    if not found:
        raise DownloadError(f"{address}: there is no TensorFlow checkpoint.")
    newest = max(found, key=lambda match: int(match["step"]))["prefix"]
    weights = [match[0] for match in found if match["prefix"] == newest]
    return _checked(address, [files[path] for path in [*_matching(files, BESIDE_TENSORFLOW), *weights]])


def _matching(files: Iterable[str], pattern: str) -> list[str]:
    return [path for path in files if re.fullmatch(pattern, path)]


def _checked(source: str, files: list[RemoteFile]) -> list[RemoteFile]:
    problems = [f"{show(file.path)}: {problem}" for file in files if (problem := name_problem(file.path))]
    if problems:
        raise DownloadError(f"{source}: these names cannot be written safely:\n{listing(problems)}")
    return files


def _are_objects(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _size(value: Any) -> int | None:
    return int(value) if re.fullmatch(r"\d{1,18}", str(value)) else None


def _checksum(algorithm: str, value: Any, length: int) -> str:
    return f"{algorithm}:{value}" if re.fullmatch(f"[0-9a-f]{{{length}}}", str(value)) else ""


def _md5(value: Any) -> str | None:
    """Google gives it in base64, and not for every object."""
    try:
        found = base64.b64decode(value, validate=True).hex()
    except (binascii.Error, TypeError, ValueError):
        return None
    return _checksum("md5", found, 32) or None
