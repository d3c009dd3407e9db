"""A checkpoint whose tensors have other names than their release gives them: wrapped in a module, under a scope."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np

from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import Checkpoint, TensorSpec
from tfloader.errors import CheckpointError, listing
from tfloader.naming.base import with_prefix
from tfloader.naming.releases import RELEASES

MANY = 1_000  # names that are looked at


class RenamedCheckpoint(Checkpoint):
    """A checkpoint in which the beginnings of names are replaced: {"model.": ""}; the first that fits counts.

    With a star in front it is the end that is replaced: {"*/ExponentialMovingAverage": ""}.

    Raises:
        CheckpointError: no name begins so, or two tensors would have one name.
    """

    def __init__(self, checkpoint: Checkpoint, rename: Mapping[str, str]) -> None:
        self.format, self._file = checkpoint.format, checkpoint
        ends = {item[1:]: new for item, new in rename.items() if item.startswith("*")}
        starts = {item: new for item, new in rename.items() if not item.startswith("*")}
        new = {name: with_suffix(str(with_prefix(name, starts)), ends) for name in checkpoint}
        problems = [f"no tensor's name begins with {item!r}" for item in starts if not _begins(checkpoint, item)]
        problems += [f"no tensor's name ends with {end!r}" for end in ends if not _ends(checkpoint, end)]
        problems += [f"two tensors would be {name!r}" for name, times in Counter(new.values()).items() if times > 1]
        if problems:
            some = listing(islice(checkpoint, 5))
            raise CheckpointError(
                f"{checkpoint.path}: rename={dict(rename)!r}:\n{listing(problems)}\nNames are:\n{some}"
            )
        self._old = {theirs: name for name, theirs in new.items()}
        specs = {theirs: checkpoint[name] for theirs, name in self._old.items()}
        super().__init__(checkpoint.path, checkpoint.watched, specs, checkpoint.skipped)

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        return self._file.read(self._old[name])


def open_renamed(path: Any, rename: Mapping[str, str] | None) -> Checkpoint:
    """A checkpoint, open, with other names if that is wanted."""
    checkpoint = open_checkpoint(path)
    try:
        return RenamedCheckpoint(checkpoint, rename) if rename else checkpoint
    except BaseException:
        checkpoint.close()
        raise


def with_suffix(name: str, ends: Mapping[str, str]) -> str:
    end = next((end for end in ends if name.endswith(end)), "")
    return name.removesuffix(end) + ends.get(end, "")


def _ends(checkpoint: Checkpoint, end: str) -> bool:
    return any(name.endswith(end) for name in checkpoint)


def _begins(checkpoint: Checkpoint, start: str) -> bool:
    return any(name.startswith(start) for name in checkpoint)


def fitting_prefix(checkpoint: Checkpoint) -> tuple[str, str] | None:
    """A beginning without which the names are a release's, and the release's title."""
    names = list(islice(checkpoint, MANY))
    ends = ((name, [found.end() for found in re.finditer("[./]", name)][:4]) for name in names)
    starts = Counter(name[:end] for name, found in ends for end in found)
    releases = [release for release in RELEASES if checkpoint.format in release.formats]
    for start, _ in starts.most_common(6):
        for release in releases:
            if release.fits({release.naming.canonical(name.removeprefix(start)) for name in names}):
                return start, release.title
    return None
