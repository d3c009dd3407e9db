"""Weights that bert4keras saved of a whole model, your own layers on top of the Transformer included."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

import keras

from tfloader.border import public
from tfloader.checkpoints import open_checkpoint
from tfloader.checkpoints.keras2 import counted
from tfloader.errors import CheckpointError, WeightsError, listing
from tfloader.naming.keras2 import FILE, keras2_name
from tfloader.suggestions import did_you_mean


@public
def load_keras2_weights(
    model: keras.Model, path: str | os.PathLike[str], *, rename: Mapping[str, str] | None = None
) -> None:
    """Fills a Keras model from what `model.save_weights` of bert4keras wrote, layer by layer, by name.

    Keras 3's own `load_weights` reads such a file by position, which exchanges beta and gamma of every norm.

    Args:
        model: made of tfloader's and Keras' layers, named as in the file. A ConditionalRandomField needs the
            `lr_multiplier` that it was saved with.
        path: an HDF5 file of Keras 2, such as "best_model.weights"; one of `model.save` will do, too.
        rename: layer of `model` -> its name in the file, where Keras chose these names ({"dense": "dense_25"}).

    Raises:
        CheckpointError: the path is no such file.
        WeightsError: variables without a tensor, tensors without a variable, other shapes. Nothing is assigned then.
    """
    with open_checkpoint(path) as checkpoint:
        if checkpoint.format != "keras2":
            raise CheckpointError(f"{os.fspath(path)}: not an HDF5 file in which Keras 2 saved a model of bert4keras.")
        stored = {FILE.canonical(name): name for name in checkpoint if not FILE.is_ignorable(name)}
        variables = {name: variable for layer in _layers(model) for name, variable in _named(layer, rename or {})}
        problems = [f"{name} has no tensor{did_you_mean(name, stored)}" for name in variables.keys() - stored.keys()]
        problems += [f"{stored[name]} has no variable" for name in stored.keys() - variables.keys()]
        problems += [
            f"{name} has shape {checkpoint[stored[name]].shape}, the model's {tuple(variables[name].shape)}"
            for name in variables.keys() & stored.keys()
            if checkpoint[stored[name]].shape != tuple(variables[name].shape)
        ]
        if problems:
            raise WeightsError(
                f"{os.fspath(path)} does not fit the model:\n{listing(sorted(problems))}\n"
                "Name the model's layers as in the file, or say which is which with rename={'layer': 'its name there'}."
            )
        arrays = [(variable, checkpoint.read(stored[name])) for name, variable in variables.items()]
    for variable, array in arrays:
        variable.assign(array)


def _layers(model: keras.Model) -> dict[keras.layers.Layer, None]:
    """The layers of a model and of the models within it, each once."""
    nested = ({layer: None} if not isinstance(layer, keras.Model) else _layers(layer) for layer in model.layers)
    return {layer: None for layers in nested for layer in layers}


def _named(layer: keras.layers.Layer, rename: Mapping[str, str]) -> Iterator[tuple[str, keras.Variable]]:
    """The variables of a layer by their names in a file."""
    paths = {}
    for variable in layer.weights:
        parts = variable.path.split("/")
        paths["/".join(parts[parts.index(layer.name) :] if layer.name in parts else parts)] = variable
    own = counted({path.split("/")[1] for path in paths if path.count("/") > 1 and keras2_name(path) == path})
    for path, variable in paths.items():
        first, *sublayers, last = keras2_name(path).split("/")
        sublayers = [own.get(name, name) for name in sublayers[:1]] + sublayers[1:]
        yield "/".join([rename.get(first, first), *sublayers, last]), variable
