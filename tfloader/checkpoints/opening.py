"""`open_checkpoint`: which container a path is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from tfloader.border import public
from tfloader.checkpoints.base import Checkpoint, show
from tfloader.checkpoints.files import describe, reading, sniff
from tfloader.checkpoints.keras2 import open_hdf5
from tfloader.checkpoints.memory import MemoryCheckpoint
from tfloader.checkpoints.safetensors import SafetensorsCheckpoint
from tfloader.checkpoints.shards import ShardedCheckpoint
from tfloader.checkpoints.tensorflow import TensorflowCheckpoint
from tfloader.checkpoints.torch import TorchCheckpoint
from tfloader.errors import CheckpointError, listing
from tfloader.filesystem import open_file
from tfloader.staging import finish
from tfloader.suggestions import did_you_mean

_ACCEPTED = (
    "model.safetensors.index.json or a .safetensors file; a TensorFlow checkpoint (.index with its .data "
    "files, and a `checkpoint` file if there are several); tf_model.h5; "
    "pytorch_model.bin.index.json or pytorch_model.bin; bert4keras' best_model.weights"
)
# The file that is taken, and the ending of the only one that is taken in its place; the first that is there counts.
_IN_A_FOLDER = (
    ("model.safetensors.index.json", ".safetensors.index.json"),
    ("model.safetensors", ".safetensors"),
    ("checkpoint", ".index"),  # a state file, which names one
    ("tf_model.h5", ".h5"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin"),
    ("best_model.weights", ".weights"),  # bert4keras
)
_ATTEMPTS = 5
_TF_PART = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")


@public
def open_checkpoint(source: str | os.PathLike[str] | Mapping[str, Any]) -> Checkpoint:
    """Opens a checkpoint; what it holds is known at once, its data are read one tensor at a time.

    Args:
        source: a dict of arrays; a folder; a `.safetensors`, `.h5`, `.bin`, `.pt` or (of Keras 2) `.weights` file; the
            index of a sharded checkpoint (`.safetensors.index.json`, `.bin.index.json`); or a TensorFlow checkpoint as
            its prefix or any of its files. In a folder the first of these is taken: safetensors, TensorFlow, HDF5,
            PyTorch, `.weights`.

    Raises:
        CheckpointError: nothing there, not readable, damaged, ambiguous, or not supported.
    """
    if isinstance(source, Mapping):
        return MemoryCheckpoint(source)
    path = os.fspath(source)
    for _ in range(_ATTEMPTS):  # a save may put other files in their places meanwhile
        finish(path if os.path.isdir(path) else os.path.dirname(path) or ".", CheckpointError)
        with reading(path):
            checkpoint = _open_folder(path) if os.path.isdir(path) else _open_file(path)
        if checkpoint.is_in_place():
            return checkpoint
        checkpoint.close()
    raise CheckpointError(f"{path}: its files are replaced again and again. Wait until whoever writes there is done.")


def _open_file(path: str) -> Checkpoint:
    name = os.path.basename(path)
    if name.endswith(".safetensors.index.json"):
        return ShardedCheckpoint(path, SafetensorsCheckpoint)
    if name.endswith((".bin.index.json", ".pt.index.json")):
        return ShardedCheckpoint(path, TorchCheckpoint)
    if name.endswith(".safetensors"):
        return SafetensorsCheckpoint(path)
    if name.endswith((".h5", ".hdf5")) or (
        name.endswith(".weights") and os.path.isfile(path) and sniff(path) == "hdf5"
    ):
        return open_hdf5(path)
    if name.endswith((".bin", ".pt", ".pth")):
        return TorchCheckpoint(path)
    if name == "checkpoint" and os.path.exists(path) and not os.path.exists(f"{path}.index"):
        return TensorflowCheckpoint(_prefix_of_state(path))
    prefix = _TF_PART.sub("", path)
    if prefix != path or os.path.exists(f"{path}.index"):
        return TensorflowCheckpoint(prefix)
    if os.path.exists(path):
        raise CheckpointError(
            f"{path}: the name does not end like a checkpoint's (.safetensors, .index, .h5, .bin). "
            f"By its content this is {describe(sniff(path))}"
        )
    raise CheckpointError(missing(path))


def missing(path: str) -> str:
    """What errors say of a path where nothing is: what it may have meant, and where to get it."""
    from tfloader.downloads.catalogue import published

    folder, name = os.path.split(path.rstrip("/"))
    release = published(name)
    public = f"It is the name of a public release: `tfloader download {release}` fetches it."
    names = os.listdir(folder or ".") if os.access(folder or ".", os.R_OK) else []
    return (
        f"{path}: no such file, folder, or TensorFlow checkpoint ({name}.index){did_you_mean(name, names) or '.'} "
        f"{public if release else '`tfloader download` fetches public checkpoints.'} "
        f"{f'The folder {folder}' if folder else 'The current folder'} {_contents(folder or '.')}"
    )


def _open_folder(folder: str) -> Checkpoint:
    names = [name for name in sorted(os.listdir(folder)) if not os.path.isdir(os.path.join(folder, name))]
    for preferred, ending in _IN_A_FOLDER:
        found = [preferred] if preferred in names else [name for name in names if name.endswith(ending)]
        if len(found) > 1:
            raise CheckpointError(
                f"{folder}: holds several files that end in {ending}, and no {preferred}. "
                f"Give the path of one of them:\n{listing(found)}"
            )
        if found:
            path = os.path.join(folder, found[0])
            return TensorflowCheckpoint(_prefix_of_state(path)) if found == ["checkpoint"] else _open_file(path)
    raise CheckpointError(f"{folder}: no checkpoint in this folder. It {_contents(folder)}\nAccepted are: {_ACCEPTED}.")


def _prefix_of_state(path: str) -> str:
    """The prefix that a `checkpoint` state file names, always in its own folder.

    The file often holds an absolute path of the machine that trained, so only its last part counts.
    """
    with open_file(path) as file:
        text = file.read(2**20).decode("utf-8", "replace")
    match = re.search(r'^\s*model_checkpoint_path:\s*"((?:[^"\\\n]|\\.)+)"', text, re.MULTILINE)
    if match is None:
        raise CheckpointError(
            f"{path}: expected the state file of a TensorFlow checkpoint, with a line "
            f'model_checkpoint_path: "...", but this is {describe(sniff(path))} '
            "Give the path of the .index file instead."
        )
    folder = os.path.dirname(path)
    name = re.split(r"[/\\]", match.group(1))[-1]
    prefix = os.path.join(folder, name)
    if name in ("", ".", "..") or not os.path.exists(f"{prefix}.index"):
        raise CheckpointError(
            f"{path}: names {show(match.group(1))}, but there is no {name}.index next to it. Download it, or "
            f"give the path of the checkpoint that you mean. The folder {_contents(folder or '.')}"
        )
    return prefix


def _contents(folder: str) -> str:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        return f"cannot be listed ({error.strerror})."
    return f"holds:\n{listing(map(show, names))}" if names else "is empty."
