"""HDF5 weights as Keras 2 wrote them: a group a layer, and in it its weights, under names that Keras made up.

bert4keras' and keras-bert's models are saved so, by `save_weights` or, with their optimizer, by `save`. A tensor is
called `layer/weight`, or `layer/sublayer/weight`. Keras numbers sublayers through all of a program (`dense_37`); here
those of one kind in a layer are counted in the order in which they were made: `dense_0`, `dense_1` ... `dense_last`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from tfloader.checkpoints.base import Checkpoint, TensorSpec
from tfloader.checkpoints.hdf5 import Hdf5Checkpoint
from tfloader.errors import CheckpointError, listing

# The layer that all models of bert4keras and keras-bert have.
KNOWN_BY = "Embedding-Token"
ALL_OF_A_MODEL = "model_weights/"


class Keras2Checkpoint(Checkpoint):
    """The weights in an HDF5 file of Keras 2, by layer."""

    format = "keras2"

    def __init__(self, file: Hdf5Checkpoint) -> None:
        self._file, self._paths = file, _names(file)
        super().__init__(file.path, file.watched, {name: file[path] for name, path in self._paths.items()})

    def _read(self, name: str, spec: TensorSpec) -> np.ndarray:
        return self._file.read(self._paths[name])


def open_hdf5(path: str) -> Checkpoint:
    """An HDF5 file: by layer where it is a model of bert4keras or keras-bert, and else as it is."""
    file = Hdf5Checkpoint(path)
    if not any(KNOWN_BY in name for name in file):
        return file
    try:
        return Keras2Checkpoint(file)
    except BaseException:
        file.close()
        raise


def counted(sublayers: Iterable[str]) -> dict[str, str]:
    """The sublayers of one layer -> what they are called here: "dense_7", "dense_9" -> "dense_0", "dense_last"."""
    kinds: dict[str, dict[int, str]] = defaultdict(dict)
    for name in sublayers:
        kind, number = re.fullmatch(r"(.*?)(?:_(\d+))?", name).groups()  # type: ignore[union-attr]
        kinds[kind][int(number or 0)] = name
    return {
        numbers[number]: f"{kind}_{'last' if index and index == len(numbers) - 1 else index}"
        for kind, numbers in kinds.items()
        for index, number in enumerate(sorted(numbers))
    }


def _names(file: Hdf5Checkpoint) -> dict[str, str]:
    """What a tensor is called here -> its path in the file."""
    start = ALL_OF_A_MODEL if any(path.startswith(ALL_OF_A_MODEL) for path in file) else ""
    layers: dict[str, list[tuple[list[str], str]]] = defaultdict(list)
    for path in file:
        if path.startswith(start):
            layer, *parts = path.removeprefix(start).removesuffix(":0").split("/")
            layers[layer].append((parts, path))
    for model in [name for name, found in layers.items() if any(parts[0].endswith(KNOWN_BY) for parts, _ in found)]:
        if not model.endswith(KNOWN_BY):  # a model within the model
            for (layer, *parts), path in layers.pop(model):
                layers[layer].append((parts, path))
    found = [(name, path) for layer, weights in layers.items() for name, path in _of_layer(layer, weights)]
    twice = [name for name, times in Counter(name for name, _ in found).items() if times > 1]
    if twice:
        raise CheckpointError(f"{file.path}: tensors that go by one name in a layer:\n{listing(twice)}")
    return dict(found)


def _of_layer(layer: str, weights: list[tuple[list[str], str]]) -> Iterable[tuple[str, str]]:
    for parts, _ in weights:
        # The layer's own name stands before its weights again, for a second model of a program with a number.
        if len(parts) > 1 and re.fullmatch(re.escape(layer) + r"(_\d+)?", parts[0]):
            del parts[0]
        parts[-1] = parts[-1].removeprefix(f"{layer}_")  # keras-bert
    names = counted({parts[0] for parts, _ in weights if len(parts) > 1})
    for (first, *rest), path in weights:
        yield "/".join([layer, names[first] if rest else first, *rest]), path
