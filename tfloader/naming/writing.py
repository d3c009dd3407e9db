"""How a model is published: in which release, with which config, under which names. Needs no framework."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from tfloader.checkpoints import write_safetensors, write_tensorflow
from tfloader.checkpoints.writing import Item
from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.files import write_json
from tfloader.naming import RELEASES
from tfloader.naming.base import Release


def release_to_write(config: TransformerConfig, format: str, own: Release | None = None) -> Release:
    """The release in which a model is written: its own if that has the format, or else the one of its model type.

    Raises:
        ConfigError: none of its family has the format.
    """
    found = [release for release in RELEASES if release.family == config.family and release.writes == format]
    if not found:
        formats = sorted({release.writes for release in RELEASES if release.family == config.family and release.writes})
        raise ConfigError(
            f"{config.family!r} models cannot be written as {format!r}; there is {' and '.join(formats) or 'none'}."
        )
    for_its_type = [release for release in found if config.model_type in release.model_types]
    return own if own in found else (for_its_type or found)[0]


def config_to_write(config: TransformerConfig, release: Release) -> dict[str, Any]:
    """The config in a release's own dialect, the first: of those by model type, the one of the model's type."""
    own = release.dialects[0]
    if "model_type" in own.constants:
        own = next((item for item in release.dialects if config.model_type == item.constants.get("model_type")), own)
    return own.write(config)


def as_published(release: Release, config: dict[str, Any], tensors: Sequence[Item]) -> list[Item]:
    """The tensors under the names of the class that holds just these, which is noted in the config with the dtype."""
    if not release.architectures:
        return list(tensors)
    architecture, prefix = release.architecture([name for name, _, _ in tensors])
    config["architectures"] = [architecture]
    config["dtype"] = tensors[0][1].dtype
    return [(name.removeprefix(prefix), spec, make) for name, spec, make in tensors]


def write_folder(
    path: str, release: Release, config: dict[str, Any], tensors: Sequence[Item], max_shard_bytes: int
) -> None:
    """Writes tensors and config, as `as_published` left them, into a folder."""
    if release.writes == "huggingface":
        write_safetensors(path, tensors, max_shard_bytes=max_shard_bytes)
    else:
        write_tensorflow(os.path.join(path, f"{release.family}_model.ckpt"), tensors)
    write_json(os.path.join(path, release.written_config), config)
