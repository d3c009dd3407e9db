"""Writes safetensors files one tensor at a time, sharded where they are large; they appear all at once."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping

from tfloader.checkpoints.files import MAX_JSON_BYTES
from tfloader.checkpoints.safetensors import DTYPES
from tfloader.checkpoints.writing import Item, checked_items, fetch, groups
from tfloader.errors import CheckpointError
from tfloader.files import write_json
from tfloader.staging import staged

_CODES = {dtype: code for code, dtype in DTYPES.items()}


def write_safetensors(
    folder: str | os.PathLike[str],
    tensors: Iterable[Item],
    *,
    metadata: Mapping[str, str] | None = None,
    max_shard_bytes: int = 5 * 1000**3,
    stem: str = "model",
) -> list[str]:
    """Writes `<stem>.safetensors`, or several shards and `<stem>.safetensors.index.json`.

    Args:
        folder: made if it is not there. An earlier save of the same stem in it is replaced.
        tensors: (name, TensorSpec, zero-argument callable that gives the array). Each array is asked for
            once and let go before the next. In a file, the tensors of wider dtypes come first, because
            readers need their data aligned; else the given order is kept.
        metadata: strings for the header, besides `{"format": "pt"}`.
        max_shard_bytes: tensor bytes in one file; a single larger tensor gets a file of its own.
        stem: the first part of the file names.

    Returns:
        The paths that were written; of a sharded save, the index comes last.

    Raises:
        CheckpointError: names, specs or arrays do not fit, or the files cannot be written. Those of an earlier save
            stay then.
    """
    folder = os.fspath(folder)
    metadata = {"format": "pt", **(metadata or {})}
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise CheckpointError(f"{folder}: metadata must map str to str, found {metadata!r}.")
    if not stem or not re.fullmatch(r"[\w.-]+", stem):
        raise CheckpointError(f"{folder}: {stem!r} cannot be the first part of file names.")
    items = checked_items(folder, tensors)
    if any(name == "__metadata__" for name, _, _ in items):
        raise CheckpointError(f"{folder}: no tensor can be called __metadata__ in a safetensors file. Rename it.")

    shards = groups(items, max_shard_bytes)
    total = sum(spec.nbytes for _, spec, _ in items)
    index = f"{stem}.safetensors.index.json"
    numbered = [f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    names = numbered if len(shards) > 1 else [f"{stem}.safetensors"]
    own = re.compile(re.escape(stem) + r"(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
    with staged(folder, CheckpointError, total, lambda there: filter(own.fullmatch, there)) as stage:
        for name, shard in zip(names, shards, strict=True):
            _write_file(os.path.join(stage, name), shard, metadata)
        if len(shards) > 1:
            weight_map = {item[0]: name for name, shard in zip(names, shards, strict=True) for item in shard}
            content = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            write_json(os.path.join(stage, index), content, CheckpointError)
            names.append(index)
    return [os.path.join(folder, name) for name in names]


def _write_file(path: str, items: list[Item], metadata: Mapping[str, str]) -> None:
    # safetensors promises no alignment, but torch cannot view a float32 at an odd offset.
    items = sorted(items, key=lambda item: -item[1].numpy_dtype.itemsize)
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for name, spec, _ in items:
        header[name] = {"dtype": _CODES[spec.dtype], "shape": spec.shape, "data_offsets": [at, at + spec.nbytes]}
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: the header would have {len(text)} bytes, more than {MAX_JSON_BYTES}.")
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for item in items:
            file.write(fetch(path, item).reshape(-1).view("uint8").data)
