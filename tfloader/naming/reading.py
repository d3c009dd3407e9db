"""What a checkpoint is: its release, by container and names of tensors, and its config, from the file beside it."""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

from tfloader.border import public
from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.base import Checkpoint, folder_of
from tfloader.checkpoints.foreign import described
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError, ConfigError, listing
from tfloader.files import read_json, read_text
from tfloader.naming import t5_mesh
from tfloader.naming.dialect import NOTES
from tfloader.naming.gin import parse_gin
from tfloader.naming.release import Release
from tfloader.naming.releases import RELEASES
from tfloader.naming.renamed import fitting_prefix

NOT_MODEL_CONFIGS = {
    "tokenizer_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "data_config.json",
}

MAX_GIN_BYTES = 1_000_000
# Shared blocks make a model's layers several times as large as its file, never this many times.
SHARED_AT_MOST = 50
SURELY_FITS = 1_000_000


@public
def load_config(path: str | os.PathLike, model: str | None = None, **options: Any) -> TransformerConfig:
    """Reads the config of a checkpoint without building anything, and without TensorFlow.

    Args:
        path: as `load`'s path.
        model: the family, where the checkpoint's names fit several.
        options: `overrides` and `ignore` of `read_config`.
    """
    with open_checkpoint(path) as checkpoint:
        return config_beside(checkpoint, release_of(checkpoint, model), **options)[0]


def release_of(checkpoint: Checkpoint, family: str | None) -> Release:
    """The release of a checkpoint that is to be read as a family's model; None: any family's.

    Raises:
        CheckpointError: it is none that we know, more than one, or another family's.
    """
    release = detect_release(checkpoint, [family] if family else ())
    if family not in (None, release.family):
        raise CheckpointError(
            f"{checkpoint.path}: model={family!r}, but the checkpoint is a {release.title} one: pass "
            f"model={release.family!r}."
        )
    return release


def config_beside(checkpoint: Checkpoint, release: Release, **options: Any) -> tuple[TransformerConfig, str]:
    """The config in the file beside a checkpoint, and the file's path; see `read_config`."""
    file = find_config(folder_of(checkpoint.path), release)
    config = read_config(release, file, shapes_of(checkpoint, release), **options)
    checkpoint.check_in_place()
    return config, file


def detect_release(
    checkpoint: Checkpoint, families: Collection[str] = (), config: str | os.PathLike | Mapping[str, Any] | None = None
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
    possible = [release for release in RELEASES if checkpoint.format in release.formats]
    spellings = {release.naming.old_names: release.naming for release in possible}
    names = {old: {naming.canonical(name) for name in checkpoint} for old, naming in spellings.items()}
    named = [release for release in possible if release.fits(names[release.naming.old_names])]
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
    hint = ""
    if fitting := fitting_prefix(checkpoint):
        start, title = fitting
        hint = (
            f"Without {start!r} at their beginning they are those of a {title}: if so, pass rename={{{start!r}: ''}}."
        )
    raise CheckpointError(
        f"{checkpoint.path}: its {len(checkpoint)} tensors are not named as in any release that tfloader knows. "
        f"{hint or described(checkpoint)}\nThe first ones:\n{some}\nKnown: {known}."
    )


def _told_apart_by_config(releases: list[Release], checkpoint: Checkpoint, config: Any) -> list[Release]:
    """Of releases whose tensors are named alike, those that the config claims to be, or else may be."""
    raw = {release.name: _config_of(release, checkpoint, config) for release in releases}
    claimed = [item for item in releases if any(dialect.claims(raw[item.name]) for dialect in item.dialects)]
    possible = [item for item in releases if any(dialect.accepts(raw[item.name]) for dialect in item.dialects)]
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


def uncut_vocab_size_beside(checkpoint: Checkpoint, release: Release) -> int | None:
    """What the config file beside a checkpoint notes of a cut vocabulary, whichever config is read."""
    noted = _config_of(release, checkpoint, None).get(NOTES)
    size = noted.get("uncut_vocab_size") if isinstance(noted, Mapping) else None
    return size if isinstance(size, int) else None


def find_config(folder: str, release: Release) -> str:
    """The path of a release's config file in a folder.

    Raises:
        ConfigError: there is none, or several of equal rank.
    """
    names = sorted(os.listdir(folder))
    for pattern in release.config_files:
        found = [name for name in names if fnmatch.fnmatchcase(name, pattern) and name not in NOT_MODEL_CONFIGS]
        if len(found) == 1:
            return os.path.join(folder, found[0])
        if found:
            raise ConfigError(f"{folder}: several files may be the config ({', '.join(found)}). Pass config=path.")
    raise ConfigError(
        f"{folder}: no config file of a {release.title} checkpoint (looked for {', '.join(release.config_files)}); "
        f"the folder holds: {', '.join(names[:20]) or 'nothing'}. Pass config=path or a dictionary."
    )


def has_config(checkpoint: Checkpoint | None) -> bool:
    """Whether a config file may be beside a checkpoint."""
    names = os.listdir(folder_of(checkpoint.path)) if checkpoint is not None and checkpoint.files else ()
    return any(name.endswith((".json", ".gin")) and name not in NOT_MODEL_CONFIGS for name in names)


def release_of_config(config: Any, families: tuple[str, ...]) -> Release:
    """The release of a config that comes without a checkpoint."""
    if config is None:
        raise ConfigError("Pass config_path, checkpoint_path, or both.")
    if not families:
        raise ConfigError("This class belongs to no family: see register_family.")
    raw = dict(config) if isinstance(config, Mapping) else read_raw_config(os.fspath(config))
    candidates = [
        (dialect.missing(raw), index)
        for index, release in enumerate(RELEASES)
        for dialect in release.dialects
        if release.family in families and dialect.accepts(raw)
    ]
    if not candidates:
        named = " or ".join(map(repr, families))
        raise ConfigError(f"{config}: not a config of a {named} model (model_type {raw.get('model_type')!r}).")
    return RELEASES[min(candidates)[1]]


def shapes_of(checkpoint: Checkpoint, release: Release) -> dict[str, tuple[int, ...]]:
    """The shapes of a checkpoint's tensors, by canonical name."""
    return {release.naming.canonical(name): tuple(spec.shape) for name, spec in checkpoint.items()}


def read_raw_config(path: str) -> dict[str, Any]:
    """The dictionary of a config file, JSON or gin."""
    if path.endswith(".gin"):
        return t5_mesh.model_bindings(parse_gin(read_text(path, limit=MAX_GIN_BYTES), path))
    return read_json(path)


def read_config(
    release: Release,
    config: str | os.PathLike | Mapping[str, Any],
    tensors: Mapping[str, tuple[int, ...]] | None = None,
    overrides: Mapping[str, Any] | None = None,
    ignore: Collection[str] = (),
    given: Mapping[str, Any] | None = None,
) -> TransformerConfig:
    """Reads the config of a release from a file, or from a dictionary as such a file would hold; see `Dialect.read`."""
    if isinstance(config, Mapping):
        raw, source = dict(config), "the given config"
    else:
        source = os.fspath(config)
        raw = read_raw_config(source)
    result = release.dialect_for(raw, source).read(raw, source, release.family, overrides, ignore, tensors, given)
    _check_size(result, tensors or {}, source)
    return result


def _check_size(config: TransformerConfig, tensors: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Refuses a config that is far too large for the checkpoint, before a model is built only to see it not fit."""
    meant, stored = config.approximate_weights, sum(math.prod(shape) for shape in tensors.values())
    if tensors and meant > max(SURELY_FITS, SHARED_AT_MOST * stored):
        raise ConfigError(
            f"{source}: its sizes mean about {meant} weights, but the checkpoint holds {stored}. "
            "Is it the config of this checkpoint?"
        )
