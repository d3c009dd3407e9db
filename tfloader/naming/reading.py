"""A release's config file: where it lies, and what it means for the tensors beside it."""

from __future__ import annotations

import fnmatch
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

from tfloader.checkpoints.base import Checkpoint
from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.files import read_json, read_text
from tfloader.naming import t5_mesh
from tfloader.naming.base import Release
from tfloader.naming.gin import parse_gin

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
) -> TransformerConfig:
    """Reads the config of a release from a file, or from a dictionary as such a file would hold.

    Args:
        release: says the dialects.
        config: path or dictionary.
        tensors: shapes of the checkpoint's tensors by canonical name.
        overrides: config fields that take precedence.
        ignore: keys of the file that the user vouches for.
    """
    if isinstance(config, Mapping):
        raw, source = dict(config), "the given config"
    else:
        source = os.fspath(config)
        raw = read_raw_config(source)
    result = release.dialect_for(raw, source).read(raw, source, release.family, overrides, ignore, tensors)
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
