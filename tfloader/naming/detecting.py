"""Which release a checkpoint is: by its container and the names of its tensors, or else by its config."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import Checkpoint, folder_of
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError, ConfigError, listing
from tfloader.naming.base import Release
from tfloader.naming.reading import find_config, read_config, read_raw_config, shapes_of
from tfloader.naming.releases import RELEASES


def detect_release(
    checkpoint: Checkpoint,
    families: Collection[str] = (),
    config: str | os.PathLike | Mapping[str, Any] | None = None,
) -> Release:
    """Which release a checkpoint is, by its container and the names of its tensors.

    Where several are named alike, the family decides, or else the config file.

    Args:
        checkpoint: an open Checkpoint.
        families: the families that the model may be of; empty: any.
        config: path or content of the config file; None: the one beside the checkpoint.

    Raises:
        CheckpointError: none that we know, or more than one.
    """
    named = [
        release
        for release in RELEASES
        if checkpoint.format in release.formats
        and release.fits({release.naming.canonical(name) for name in checkpoint})
    ]
    found = [release for release in named if release.family in families] or named
    found = [release for release in found if release.gives_way_to not in {other.name for other in found}]
    if len(found) > 1:
        found = _told_apart_by_config(found, checkpoint, config)
    if len(found) == 1:
        return found[0]
    if found:
        titles = ", ".join(release.title for release in found)
        models = " or ".join(dict.fromkeys(f"model={release.family!r}" for release in found))
        raise CheckpointError(f"{checkpoint.path}: its tensors fit several releases ({titles}). Pass {models}.")
    some = listing(sorted(checkpoint)[:8]) or "  (none)"
    known = ", ".join(sorted({release.title for release in RELEASES}))
    raise CheckpointError(
        f"{checkpoint.path}: its {len(checkpoint)} tensors are not named as in any release that tfloader knows.\n"
        f"The first ones:\n{some}\nKnown: {known}."
    )


def _told_apart_by_config(releases: list[Release], checkpoint: Checkpoint, config: Any) -> list[Release]:
    """Of releases whose tensors are named alike, those that the config claims to be, or else may be."""
    claimed, possible = [], []
    for release in releases:
        raw = _config_of(release, checkpoint, config)
        if any(dialect.claims(raw) for dialect in release.dialects):
            claimed.append(release)
        if any(dialect.accepts(raw) for dialect in release.dialects):
            possible.append(release)
    return claimed or possible or releases


def _config_of(release: Release, checkpoint: Checkpoint, config: Any) -> Mapping[str, Any]:
    """The content of the config file as far as there is one."""
    if isinstance(config, Mapping):
        return config
    try:
        if config is None and checkpoint.files:
            config = find_config(folder_of(checkpoint.path), release)
        return {} if config is None else read_raw_config(os.fspath(config))
    except ConfigError:
        return {}  # whoever needs it will say what is wrong with it


def load_config(path: str | os.PathLike, model: str | None = None, **options: Any) -> TransformerConfig:
    """Reads the config of a checkpoint without building anything, and without TensorFlow.

    Args:
        path: as `load`'s path.
        model: the family, where the checkpoint's names fit several.
        options: `overrides` and `ignore` of `read_config`.
    """
    with open_checkpoint(path) as checkpoint:
        release = detect_release(checkpoint, () if model is None else (model,))
        return read_config(release, find_config(folder_of(path), release), shapes_of(checkpoint, release), **options)
