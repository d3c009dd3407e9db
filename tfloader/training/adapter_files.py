"""Adapters alone: one small safetensors file, variable path -> array, that fits the base weights it was trained on."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.border import public
from tfloader.checkpoints import open_checkpoint
from tfloader.errors import TrainingError, WeightsError, listing
from tfloader.files import parse_json, show
from tfloader.layers.lora import Adapter, adaptable
from tfloader.selection import all_layers
from tfloader.training.callbacks import write_variables
from tfloader.training.freezing import Trainable, train_only
from tfloader.training.lora import adapters, obstacles, scope_of

METADATA = "tfloader_lora"


@public
def save_adapters(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the adapters, and whatever else is trainable (a head), as one safetensors file: variable path -> array.

    An earlier file stays until the new one is complete. Noted are rank, alpha and a checksum of each base. Name a
    Sequential model, if one is part of it: its name is part of the paths, and Keras' own names count up.

    Raises:
        TrainingError: no adapters, or two variables with one path.
        CheckpointError: the file cannot be written.
    """
    if Path(path).suffix != ".safetensors":
        raise TrainingError(f"{os.fspath(path)}: the name of an adapter file ends in .safetensors.")
    found = adapters(model)
    if not found:
        raise TrainingError(f"The model {model.name!r} has no LoRA adapters to save. Call enable_lora first.")
    _by_path(model)
    variables = {part.path: part for item in found for part in item.pair}
    variables |= {variable.path: variable for variable in model.trainable_weights}
    write_variables(Path(path), variables, {METADATA: json.dumps({item.path: _description(item) for item in found})})


@public
def load_adapters(model: keras.Model, path: str | os.PathLike) -> Trainable:
    """Reads what `save_adapters` wrote into a model with the same base weights, and enables LoRA where it is not.

    What the file holds trains from then on, all else is frozen.

    Raises:
        WeightsError: naming each layer or variable that is missing or differs in shape, rank, alpha or base weights
            (not compared in another dtype); nothing is changed then.
        CheckpointError: the file is damaged.
    """
    path = os.fspath(path)
    with open_checkpoint(path) as checkpoint:
        arrays = {name: np.asarray(checkpoint.read(name)) for name in checkpoint}
        text = getattr(checkpoint, "metadata", {}).get(METADATA)
    if text is None:
        raise WeightsError(f"{path}: not a file that save_adapters wrote.")
    noted = _checked(parse_json(text, path, WeightsError), path)
    layers = {found.path: found for layer in all_layers(model) if (found := adaptable(layer))}
    problems = list(_misfits(model, layers, noted, arrays))
    if problems:
        raise WeightsError(f"{path} does not fit the model {model.name!r}:\n{listing(problems)}")
    with scope_of(model):
        for name, note in noted.items():
            if not layers[name].layer.lora_enabled:
                layers[name].layer.enable_lora(note["rank"], lora_alpha=note["alpha"])
    known = _by_path(model)
    for name, array in arrays.items():
        known[name].assign(array)
    return train_only(model, [known[name] for name in arrays])


def _misfits(model: keras.Model, layers: dict[str, Adapter], noted: dict, arrays: dict) -> Iterator[str]:
    expected = {name: tuple(variable.shape) for name, variable in _by_path(model).items()}
    for item in adapters(model):
        if item.path not in noted:
            yield f"{item.path} has LoRA, the file has none for it"
    for name, note in noted.items():
        if name not in layers:
            yield f"{name}: no such layer in the model"
            continue
        item = layers[name]
        yield from (f"{name}: {difference}" for difference in _differences(item, note))
        shapes = (*item.shape[:-1], note["rank"]), (note["rank"], item.shape[-1])
        own = dict(zip((f"{name}/{part}" for part in item.names), shapes, strict=True))
        yield from (f"{part} is not in the file" for part in own if part not in arrays)
        expected |= own
    for name, array in arrays.items():
        if name not in expected:
            yield f"{name}: no such variable in the model"
        elif array.shape != expected[name]:
            yield f"{name} has shape {array.shape} in the file, {expected[name]} in the model"


def _differences(item: Adapter, note: dict[str, Any]) -> Iterator[str]:
    own = _description(item)
    if item.layer.lora_enabled:
        for name in ("rank", "alpha"):
            if own[name] != note[name]:
                yield f"{name} is {note[name]} in the file, {own[name]} in the model"
    else:
        yield from obstacles(item.layer)
    dtype = own["base"].split()[0]
    if note["base"].startswith(f"{dtype} ") and note["base"] != own["base"]:
        yield "the adapter was trained on other base weights"


def _description(item: Adapter) -> dict[str, Any]:
    array = np.ascontiguousarray(ops.convert_to_numpy(item.base))
    checksum = f"{keras.backend.standardize_dtype(item.dtype)} {zlib.crc32(array.view('uint8').data):08x}"
    return {"rank": item.layer.lora_rank, "alpha": item.layer.lora_alpha, "base": checksum}


def _checked(noted: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    kinds = {"rank": int, "alpha": (int, float), "base": str}
    for layer, note in noted.items():
        good = isinstance(note, dict) and all(isinstance(note.get(name), kind) for name, kind in kinds.items())
        if not good or note["rank"] < 1:
            raise WeightsError(f"{path}: the note on {show(layer)} is damaged. Get the file again.")
    if not noted:
        raise WeightsError(f"{path}: the file notes no layer. Get it again.")
    return noted


def _by_path(model: keras.Model) -> dict[str, Any]:
    """All weights by path, each of which must come once."""
    result: dict[str, Any] = {}
    twice = [item.path for item in model.weights if result.setdefault(item.path, item) is not item]
    if twice:
        raise TrainingError(
            f"The model {model.name!r} has different variables with one path; give their layers names of their own "
            f"(prefix=... when loading):\n{listing(twice)}"
        )
    return result
