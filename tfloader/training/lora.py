"""LoRA by name (Hu et al., 2021, arXiv:2106.09685): Keras' own adapters, switched on, merged, and saved alone.

An adapted layer computes with base + alpha / rank * a b, of which only a and b train.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from tfloader.checkpoints import open_checkpoint, write_safetensors
from tfloader.checkpoints.base import TensorSpec
from tfloader.errors import TrainingError, WeightsError, listing
from tfloader.files import parse_json, show
from tfloader.training.freezing import Trainable, train_only
from tfloader.training.selection import all_layers, recompile, select

METADATA = "tfloader_lora"


@dataclass(frozen=True)
class Adapter:
    """A layer that Keras can adapt; stands for its base variable with the adapter merged into it.

    Attributes:
        layer: a Dense, EinsumDense, Embedding, or anything else with Keras' `enable_lora`.
        base: its variable "kernel" or "embeddings".
    """

    layer: keras.layers.Layer
    base: Any

    @property
    def path(self) -> str:
        """The layer's path."""
        return self.base.path.removesuffix(f"/{self.base.name}")

    @property
    def names(self) -> tuple[str, str]:
        """The layer's attributes that hold a and b."""
        return f"lora_{self.base.name}_a", f"lora_{self.base.name}_b"

    @property
    def pair(self) -> tuple[Any, Any]:
        """The variables a [..., rank] and b [rank, size]."""
        return tuple(getattr(self.layer, name) for name in self.names)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.base, *self.pair)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.base.shape)

    @property
    def dtype(self) -> str:
        return self.base.dtype

    @property
    def value(self) -> Any:
        """The merged value: what the layer computes with, in the dtype of the variable."""
        a, b = self.pair
        change = self.layer.lora_alpha / self.layer.lora_rank * ops.matmul(a, b)
        return ops.cast(ops.add(self.base, change), self.base.dtype)

    def remove(self) -> None:
        """Makes the layer a plain one, without the change."""
        for name in self.names:
            # Functions that were compiled with the adapter keep its variables: there, too, the change is gone.
            getattr(self.layer, name).assign(ops.zeros(getattr(self.layer, name).shape))
            delattr(self.layer, name)
        self.layer.lora_enabled = False
        self.layer.lora_rank = self.layer.lora_alpha = None


def adaptable(layer: Any) -> Adapter | None:
    """The Adapter of a built layer that Keras can adapt, adapted or not; else None."""
    if not hasattr(layer, "enable_lora"):
        return None
    bases = [variable for variable in layer.weights if variable.name in ("kernel", "embeddings")]
    return Adapter(layer, bases[0]) if bases else None


def adapted(layer: Any) -> Adapter | None:
    """The Adapter of a layer on which LoRA is enabled; else None."""
    return adaptable(layer) if getattr(layer, "lora_enabled", False) else None


def adapters(model: keras.Model) -> list[Adapter]:
    """All adapters of a model."""
    return [found for layer in all_layers(model) if (found := adapted(layer))]


def enable_lora(
    model: keras.Model,
    patterns: str | Sequence[str],
    rank: int = 8,
    alpha: float | None = None,
    train: str | Sequence[str] = (),
) -> Trainable:
    """Adds adapters to layers chosen by name and freezes all else: `enable_lora(model, ["query", "value"], rank=8)`.

    The model computes at first what it did before. Call it before `compile`; functions that were compiled earlier
    (`predict` of another model with the same layers) go on without the adapters. `tfloader.save` writes the merged
    weights; so does Keras' own `model.save`, but what that reads back has adapters of zeros, which learn nothing: merge
    them, or keep the adapters with `save_adapters`.

    Args:
        patterns: globs as for `freeze`, of Dense, EinsumDense and Embedding layers: "query", "*/query", "Pooler-Dense",
            "Transformer-11-*".
        rank: size of the adapters.
        alpha: the change is scaled by alpha / rank; None: by 1.
        train: globs of what trains beside all adapters of the model, such as a new head.

    Returns:
        What trains now.

    Raises:
        TrainingError: a pattern fits no such layer (with near names), or a layer cannot have an adapter; nothing is
            changed then.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise TrainingError(f"rank must be a positive integer, found {rank!r}.")
    candidates = {id(found.base): found for layer in all_layers(model) if (found := adaptable(layer))}
    bases = [item.base for item in candidates.values()]
    chosen = [candidates[id(base)] for base in select(model, patterns, bases, "layers that can have LoRA")]
    others = select(model, train)
    problems = [f"{item.path}: {problem}" for item in chosen for problem in _obstacles(item.layer)]
    if problems:
        raise TrainingError(f"LoRA cannot be enabled on these layers:\n{listing(problems)}")
    with _scope(model):
        for item in chosen:
            item.layer.enable_lora(rank, lora_alpha=alpha)
    return train_only(model, [*(part for item in adapters(model) for part in item.pair), *others])


def _scope(model: keras.Model) -> Any:
    """Where new variables of a model belong: the scope of its tf.distribute strategy."""
    strategy = getattr(model, "distribute_strategy", None)  # on TensorFlow alone
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def _obstacles(layer: keras.layers.Layer) -> Iterator[str]:
    if layer.lora_enabled:
        yield "has LoRA already; merge_lora(model) makes it plain"
    if layer.quantization_mode not in (None, "int8", "int4"):
        yield f"is quantised ({layer.quantization_mode})"
    if getattr(layer, "kernel_constraint", None) or getattr(layer, "embeddings_constraint", None):
        yield "has a constraint on its kernel"


def merge_lora(model: keras.Model) -> list[str]:
    """Adds every adapter to its base weights and removes it: the model is a plain one again, and computes the same.

    The base weights stay frozen; `unfreeze(model)` lets all train.

    Returns:
        The paths of the layers that had an adapter.

    Raises:
        TrainingError: there is no adapter, or a layer is quantised, whose weights cannot hold the sum exactly; nothing
            is changed then.
    """
    found = adapters(model)
    if not found:
        raise TrainingError(f"The model {model.name!r} has no LoRA adapters to merge.")
    quantised = [item.path for item in found if item.layer.quantization_mode]
    if quantised:
        raise TrainingError(
            f"These layers are quantised, and rounding the sum again would change it:\n{listing(quantised)}\n"
            "Use save_adapters, load_adapters on the model that is not quantised, and merge there."
        )
    with _quick_deletion():
        for item in found:
            item.base.assign(item.value)
            item.remove()
    recompile(model)
    return [item.path for item in found]


@contextlib.contextmanager
def _quick_deletion():
    """Keras collects garbage after each deleted variable; within this, that does not search all old objects again."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def save_adapters(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes the adapters, and whatever else is trainable (a head), as one safetensors file: variable path -> array.

    Atomic: an earlier file stays until the new one is complete. The file notes rank, alpha and a checksum of each base.

    Args:
        path: ends in ".safetensors".

    Raises:
        TrainingError: no adapters, or two variables with one path.
        CheckpointError: the file cannot be written.
    """
    folder, name = os.path.split(os.path.abspath(path))
    stem, extension = os.path.splitext(name)
    if extension != ".safetensors":
        raise TrainingError(f"{os.fspath(path)}: the name of an adapter file ends in .safetensors.")
    found = adapters(model)
    if not found:
        raise TrainingError(f"The model {model.name!r} has no LoRA adapters to save. Call enable_lora first.")
    variables = {part.path: part for item in found for part in item.pair}
    variables |= {variable.path: variable for variable in model.trainable_weights}
    _by_path(model)
    items = [
        (key, TensorSpec(tuple(item.shape), keras.backend.standardize_dtype(item.dtype)), _reader(item))
        for key, item in variables.items()
    ]
    metadata = {METADATA: json.dumps({item.path: _description(item) for item in found})}
    write_safetensors(folder, items, metadata=metadata, stem=stem, max_shard_bytes=1 << 62)


def load_adapters(model: keras.Model, path: str | os.PathLike) -> Trainable:
    """Reads what `save_adapters` wrote into a model with the same base weights, and enables LoRA where it is not.

    What the file holds trains from then on, all else is frozen.

    Raises:
        WeightsError: naming each layer or variable that is missing or differs in shape, rank, alpha or base weights;
            nothing is changed then. (Base weights of another dtype are not compared.)
        CheckpointError: the file is damaged.
    """
    with open_checkpoint(os.fspath(path)) as checkpoint:
        arrays = {name: np.asarray(checkpoint.read(name)) for name in checkpoint}
        text = getattr(checkpoint, "metadata", {}).get(METADATA)
    if text is None:
        raise WeightsError(f"{os.fspath(path)}: not a file that save_adapters wrote.")
    noted = _checked(parse_json(text, os.fspath(path), WeightsError), os.fspath(path))
    candidates = {found.path: found for layer in all_layers(model) if (found := adaptable(layer))}
    known = _by_path(model)
    shapes = {name: tuple(variable.shape) for name, variable in known.items()}
    problems = [f"{item.path} has LoRA, the file has none for it" for item in adapters(model) if item.path not in noted]
    for layer, own in noted.items():
        if layer not in candidates:
            problems.append(f"{layer}: no such layer in the model")
            continue
        item = candidates[layer]
        problems += [f"{layer}: {difference}" for difference in _differences(item, own)]
        shapes |= dict(zip((f"{layer}/{name}" for name in item.names), _shapes(item, own["rank"]), strict=True))
    for name, array in arrays.items():
        if name not in shapes:
            problems.append(f"{name}: no such variable in the model")
        elif array.shape != shapes[name]:
            problems.append(f"{name} has shape {array.shape} in the file, {shapes[name]} in the model")
    if problems:
        raise WeightsError(f"{os.fspath(path)} does not fit the model {model.name!r}:\n{listing(problems)}")
    with _scope(model):
        for layer, own in noted.items():
            if not candidates[layer].layer.lora_enabled:
                candidates[layer].layer.enable_lora(own["rank"], lora_alpha=own["alpha"])
    known = _by_path(model)
    for name, array in arrays.items():
        known[name].assign(array)
    return train_only(model, [known[name] for name in arrays])


def _checked(noted: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    kinds = {"rank": int, "alpha": (int, float), "base": str}
    for layer, own in noted.items():
        if not isinstance(own, dict) or not all(isinstance(own.get(name), kind) for name, kind in kinds.items()):
            raise WeightsError(f"{path}: the note on {show(layer)} is damaged. Get the file again.")
    if not noted:
        raise WeightsError(f"{path}: the file notes no layer. Get it again.")
    return noted


def _description(item: Adapter) -> dict[str, Any]:
    array = np.ascontiguousarray(ops.convert_to_numpy(item.base))
    checksum = f"{keras.backend.standardize_dtype(item.dtype)} {zlib.crc32(array.view('uint8')):08x}"
    return {"rank": item.layer.lora_rank, "alpha": item.layer.lora_alpha, "base": checksum}


def _differences(item: Adapter, noted: dict[str, Any]) -> Iterator[str]:
    own = _description(item)
    for name in ("rank", "alpha") if item.layer.lora_enabled else ():
        if own[name] != noted[name]:
            yield f"{name} is {noted[name]} in the file, {own[name]} in the model"
    dtype = own["base"].split()[0]
    if noted["base"].startswith(f"{dtype} ") and noted["base"] != own["base"]:
        yield "the adapter was trained on other base weights"


def _shapes(item: Adapter, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (*item.shape[:-1], rank), (rank, item.shape[-1])


def _by_path(model: keras.Model) -> dict[str, Any]:
    """All weights by path.

    Raises:
        TrainingError: a path comes twice.
    """
    result: dict[str, Any] = {}
    twice = [item.path for item in model.weights if result.setdefault(item.path, item) is not item]
    if twice:
        raise TrainingError(
            f"The model {model.name!r} has different variables with one path; give their layers names of their own "
            f"(prefix=... when loading):\n{listing(twice)}"
        )
    return result


def _reader(variable: Any) -> Any:
    return lambda: np.asarray(ops.convert_to_numpy(variable))
