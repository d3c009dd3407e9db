"""Checkpoints in several files with a JSON index that maps tensor names to files, as in Hugging Face's.

The index is outside of what the containers themselves promise, so everything about it is checked here, and
all that is wrong is reported at once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec, Watch, show
from tfloader.checkpoints.files import MAX_JSON_BYTES, expect
from tfloader.errors import CheckpointError, listing
from tfloader.files import read_json


class ShardedCheckpoint(Checkpoint):
    """The checkpoint of the index file `index`, whose shards `open_shard(path)` opens."""

    def __init__(self, index: str, open_shard: Callable[[str], Checkpoint]) -> None:
        watch = Watch(index)
        weight_map = _read_index(index)
        self._shards: dict[str, Checkpoint] = {}
        problems = []
        for shard in sorted(set(weight_map.values())):
            try:
                self._shards[shard] = open_shard(shard_path(index, shard))
            except CheckpointError as error:
                problems.append(str(error))
        problems += self._disagreements(weight_map)
        if problems:
            self.close()
            raise CheckpointError(
                f"{index}: the index and the shards next to it do not fit together. They may come from "
                f"different downloads; download the whole folder again:\n{listing(problems)}"
            )
        self.format = next(iter(self._shards.values())).format
        self._owner = {name: self._shards[shard] for name, shard in weight_map.items()}
        specs: dict[str, TensorSpec] = {name: shard[name] for name, shard in self._owner.items()}
        skipped = {name: why for shard in self._shards.values() for name, why in shard.skipped.items()}
        watched = (watch, *(item for shard in self._shards.values() for item in shard.watched))
        super().__init__(index, watched, specs, skipped)

    def close(self) -> None:
        super().close()
        for shard in self._shards.values():
            shard.close()

    def read(self, name: str) -> np.ndarray:
        self._check_readable(name)
        return self._owner[name].read(name)

    def _disagreements(self, weight_map: dict[str, str]) -> list[str]:
        problems = []
        holders: dict[str, list[str]] = {}
        for shard, checkpoint in self._shards.items():
            for name in checkpoint:
                holders.setdefault(name, []).append(shard)
        for name in weight_map | holders:
            shard, found = weight_map.get(name), holders.get(name, [])
            if shard is None:
                problems.append(f"{show(name)} is in {found[0]}, but not in the index")
            elif shard in self._shards and shard not in found:
                where = f"; it is in {', '.join(found)}" if found else ""
                problems.append(f"{show(name)} should be in {shard}, but is not{where}")
            if len(found) > 1:
                problems.append(f"{show(name)} is in more than one shard: {', '.join(found)}")
        return problems


def _read_index(path: str) -> dict[str, str]:
    """The index's `weight_map`: {tensor name: shard file name}."""
    expect(path, "the JSON index of a sharded checkpoint", "json")
    index = read_json(path, CheckpointError, MAX_JSON_BYTES)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f'{path}: expected an object with "weight_map", which maps tensor names to shard files, but '
            f"found the keys {', '.join(map(show, list(index)[:10])) or '(none)'}. Download it again."
        )
    bad = [f"{show(name)}: {show(str(shard))}" for name, shard in weight_map.items() if not isinstance(shard, str)]
    names = dict.fromkeys(shard for shard in weight_map.values() if isinstance(shard, str))
    bad += [show(shard) for shard in names if not _plain(shard)]
    if bad:
        raise CheckpointError(
            f'{path}: "weight_map" must hold plain file names of shards in the same folder. Do not use this '
            f"index:\n{listing(bad)}"
        )
    return weight_map


def _plain(name: str) -> bool:
    """Whether `name` names a file of the folder itself, on any operating system."""
    return name not in ("", ".", "..") and not any(c in "/\\:" or ord(c) < 32 for c in name)


def shard_path(index: str, shard: str) -> str:
    """The path of a shard that `index` names; refuses a symbolic link that leads elsewhere.

    A link may stay in the folder. In the Hugging Face cache, where `models--x/snapshots/<revision>/name` is a
    link to `models--x/blobs/<hash>`, it may also lead into that `blobs` folder, which must not be a link.
    """
    folder = Path(index).parent
    path = folder / shard
    if path.is_symlink():
        real, real_folder = path.resolve(), folder.resolve()
        allowed = [real_folder]
        allowed += [up.parent / "blobs" for up in (real_folder, *real_folder.parents) if up.name == "snapshots"]
        if not any(real.is_relative_to(place) for place in allowed):
            raise CheckpointError(
                f"{path}: a symbolic link to {real}, which is outside of the checkpoint's folder. "
                "Copy the file into the folder if you trust it."
            )
    return str(path)
