"""Choosing a model's variables by globs on names: of a variable's path, or of any layer that holds it."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence
from typing import Any

import keras

from tfloader.errors import TrainingError, listing
from tfloader.suggestions import did_you_mean


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers of a model at every depth, each once: those in composite layers and in models within it too."""
    return list(model._flatten_layers(include_self=False))  # Keras has no public way into composite layers


def layer_named(model: keras.Model, name: str) -> keras.layers.Layer:
    """The layer of that name, at any depth.

    Raises:
        TrainingError: there is none (with the nearest names), or several.
    """
    layers = all_layers(model)
    found = [layer for layer in layers if name in (layer.name, layer.path)]
    if len(found) != 1:
        problem = f"{len(found)} layers named" if found else "no layer"
        hint = did_you_mean(name, sorted({item.name for item in layers} - {name})) or "."
        raise TrainingError(f"The model {model.name!r} has {problem} {name!r}{hint}")
    return found[0]


def select(
    model: keras.Model, patterns: str | Sequence[str], among: Collection[Any] | None = None, what: str = "weights"
) -> list[Any]:
    """The variables that globs choose, in the model's order.

    Args:
        patterns: "Transformer-0-*", "*/bias", "query": a pattern chooses a variable if it fits its path or the name or
            path of a layer or inner model that holds it. Case matters; `*` also stands for "/".
        among: the variables to choose from; None: all weights.
        what: what `among` is, in errors.

    Raises:
        TrainingError: naming each pattern that chooses nothing, with names that are near.
    """
    allowed = {id(variable): variable for variable in (model.weights if among is None else among)}
    names: dict[str, set[int]] = {}
    for layer in all_layers(model):
        held = {id(variable) for variable in layer.weights} & allowed.keys()
        for name in {layer.name, layer.path} if held else ():
            names.setdefault(name, set()).update(held)
    for key, variable in allowed.items():
        names.setdefault(variable.path, set()).add(key)

    chosen: set[int] = set()
    problems = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            problems.append(f"{pattern!r}{did_you_mean(pattern.replace('*', ''), names)}")
        chosen.update(*(names[name] for name in fitting))
    if problems:
        raise TrainingError(f"Patterns that fit no {what} of the model {model.name!r}:\n{listing(problems)}")
    return [variable for key, variable in allowed.items() if key in chosen]


def recompile(model: keras.Model) -> None:
    """Makes Keras trace its functions again, which hold on to the variables and layers of their first call."""
    if model.compiled:
        model.make_train_function(force=True)
        model.make_test_function(force=True)
    if model.predict_function is not None:
        model.make_predict_function(force=True)
