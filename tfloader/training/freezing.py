"""Freezing by name: which variables a model trains."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras

from tfloader.border import public
from tfloader.selection import all_layers, select


class Trainable(NamedTuple):
    """What a model trains: paths of variables, and how many numbers they hold; printed, it says how much that is."""

    trainable: list[str]
    frozen: list[str]
    trainable_parameters: int
    frozen_parameters: int

    def __str__(self) -> str:
        total = self.trainable_parameters + self.frozen_parameters
        share = self.trainable_parameters / max(total, 1)
        variables = f"{len(self.trainable)} of {len(self.trainable) + len(self.frozen)} variables"
        return f"{self.trainable_parameters:,} of {total:,} parameters train ({share:.2%}), in {variables}."


@public
def freeze(model: keras.Model, patterns: str | Sequence[str] = "*") -> Trainable:
    """Freezes what names choose (`tfloader.selection`): `freeze(model, ["Embedding-*", "Transformer-0"])`.

    The default is everything. Call it on the model that is fitted, before or after `compile`. Frozen before the first
    `fit`, variables get no optimizer state. A layer of which all variables are frozen gets trainable=False. Keras does
    not save what is frozen within a layer: freeze again after load_model.

    Raises:
        TrainingError: naming each pattern that fits nothing, with names that are near.
    """
    chosen = ids(select(model, patterns))
    return train_only(model, [variable for variable in model.trainable_weights if id(variable) not in chosen])


@public
def unfreeze(model: keras.Model, patterns: str | Sequence[str] = "*") -> Trainable:
    """Lets what names choose train again; arguments and errors as for `freeze`.

    Statistics (a batch norm's averages) never train. An optimizer that has already trained the model without these
    variables refuses them: compile again.
    """
    return train_only(model, [*model.trainable_weights, *select(model, patterns)])


def train_only(model: keras.Model, variables: Collection[Any]) -> Trainable:
    """Lets exactly these variables train, as far as they are of a kind that can."""
    wanted = ids(variables)
    # All variables but statistics are made trainable: each layer by itself, and by way of False, for on TensorFlow what
    # is set already is not handed on to a layer's parts.
    for value in (False, True):
        for layer in (model, *all_layers(model)):
            layer.trainable = value
    for variable in model.weights:
        if variable.trainable:
            variable.trainable = id(variable) in wanted
    for layer in all_layers(model):
        if layer.weights and not layer.trainable_weights:
            layer.trainable = False
    recompile(model)
    trains = ids(model.trainable_weights)
    groups = [[item for item in model.weights if (id(item) in trains) is moves] for moves in (True, False)]
    trained, frozen = ([variable.path for variable in group] for group in groups)
    sizes = (sum(math.prod(variable.shape) for variable in group) for group in groups)
    return Trainable(trained, frozen, *sizes)


def recompile(model: keras.Model) -> None:
    """Makes Keras trace its functions again, which hold on to the variables and layers of their first call."""
    if model.compiled:
        model.make_train_function(force=True)
        model.make_test_function(force=True)
    if model.predict_function is not None:
        model.make_predict_function(force=True)


def ids(variables: Collection[Any]) -> set[int]:
    return {id(variable) for variable in variables}
