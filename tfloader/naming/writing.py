"""How a model is published: in which release, with which config, under which names, in the place of which files.

Needs no framework.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import Any

from tfloader.checkpoints import write_safetensors, write_tensorflow
from tfloader.checkpoints.writing import Item
from tfloader.config import TransformerConfig
from tfloader.errors import CheckpointError, ConfigError, TfloaderError, listing
from tfloader.files import TOKENIZER_FILES, write_json
from tfloader.naming import RELEASES, load_config
from tfloader.naming.release import Release
from tfloader.staging import Replaces

GENERATION = "generation_config.json"
TASK_FILE, TASK_WEIGHTS = "task.json", "task.safetensors"  # of a task around the model
SAFETENSORS = r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?"
TENSORFLOW = r"_model\.ckpt\.(index|data-\d{5}-of-\d{5})"
# What others call the weights in such a folder, and what `download` notes of a folder.
OF_OTHERS = re.compile(
    r"pytorch_model.*\.bin(\.index\.json)?|tf_model.*\.h5|flax_model.*\.msgpack"
    r"|.+\.(index|meta|data-\d{5}-of-\d{5})|\.download\.json"
)


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
    prefix = ""
    if "architectures" not in config:  # which names the class of a head
        architecture, prefix = release.architecture([name for name, _, _ in tensors])
        config["architectures"] = [architecture]
    config["dtype"] = tensors[0][1].dtype
    return [(name.removeprefix(prefix), spec, make) for name, spec, make in tensors]


def write_folder(
    stage: str, release: Release, config: dict[str, Any], tensors: Sequence[Item], max_shard_bytes: int
) -> None:
    """Writes tensors and config, as `as_published` left them, into a stage."""
    if release.writes == "huggingface":
        write_safetensors(stage, tensors, max_shard_bytes=max_shard_bytes)
    else:
        write_tensorflow(os.path.join(stage, f"{release.family}_model.ckpt"), tensors)
    write_json(os.path.join(stage, release.written_config), config)


def write_tokenizer(folder: str, tokenizer: Any | None, release: Release | None) -> None:
    """Writes a tokenizer's files into a stage, under a release's names of them."""
    if tokenizer is not None:
        tokenizer.save(folder)
        for theirs, own in (release.tokenizer_files if release else {}).items():
            if os.path.exists(os.path.join(folder, theirs)):
                os.replace(os.path.join(folder, theirs), os.path.join(folder, own))


def in_place_of_an_earlier_save(path: str, release: Release, config: TransformerConfig, tokenizer: Any) -> Replaces:
    """Which files of a folder go when a model is saved there, for `staged`.

    The weights and config of an earlier save, in any format. Its tokenizer and generation defaults go too, unless the
    model that they belong to has the new one's family and number of tokens, and no new tokenizer comes.

    Raises:
        CheckpointError: (when asked) the folder would hold two checkpoints.
    """

    def replaced(names: Collection[str]) -> set[str]:
        earlier = files_of_an_earlier_save(names)
        others = [name for name in names if name not in earlier and OF_OTHERS.fullmatch(name)]
        if release.writes == "tensorflow":  # which `load` takes after safetensors
            others += [name for name in names if name not in earlier and name.endswith(".safetensors")]
        if others:
            raise CheckpointError(
                f"{path}: holds files of another checkpoint, which is no earlier save, and would then hold two. Give "
                f"another folder, or remove them:\n{listing(others)}"
            )
        if earlier:
            earlier |= {TASK_FILE, TASK_WEIGHTS}
        if earlier and not _has_same_tokens(path, config):
            return {*earlier, *TOKENIZER_FILES, GENERATION}
        return earlier if tokenizer is None else earlier | TOKENIZER_FILES

    return replaced


def files_of_an_earlier_save(names: Collection[str]) -> set[str]:
    """Of the names in a folder, those of the weights and config that `save` writes."""
    found: set[str] = set()
    for release in RELEASES:
        pattern, beside = {
            "huggingface": (SAFETENSORS, {release.written_config}),
            "tensorflow": (re.escape(release.family) + TENSORFLOW, {release.written_config, "checkpoint"}),
        }.get(release.writes or "", ("(?!)", set()))
        if weights := {name for name in names if re.fullmatch(pattern, name)}:
            found |= weights | beside.intersection(names)
    return found


def _has_same_tokens(path: str, config: TransformerConfig) -> bool:
    try:
        earlier = load_config(path)
    except TfloaderError:
        return False
    return (earlier.family, earlier.vocab_size) == (config.family, config.vocab_size)
