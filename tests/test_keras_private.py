"""What tfloader uses of Keras without Keras documenting it: in one module, and as it was when that was written."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfloader
from tfloader import keras_private
from tfloader.selection import all_layers

ROOT = Path(tfloader.__file__).parent
SOURCES = sorted(path for path in ROOT.rglob("*.py") if path.name != "keras_private.py")


def module_name(path: Path) -> str:
    name = ".".join(("tfloader", *path.relative_to(ROOT).with_suffix("").parts))
    return name.removesuffix(".__init__")


@functools.cache
def our_private_names() -> set[str]:
    """What modules and classes of tfloader define or set on themselves under an underscore."""
    return {
        name for path in SOURCES for name in re.findall(r"(?:(?:self|cls)\.|def |class )(_[a-z]\w*)", path.read_text())
    }


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_private_of_other_objects_is_used(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr):
            assert node.attr in our_private_names(), f"line {node.lineno}: {ast.unparse(node)}"
    assert not re.search(r"keras\.src|tensorflow\.python|tf\.__internal__|_getframe|walk_stack", path.read_text())


def private_names_of(bases: list[type]) -> set[str]:
    """What classes of Keras define or set on themselves under an underscore."""
    sources = [inspect.getsource(base) for base in bases]
    return {name for text in sources for name in re.findall(r"(?:self\.|def )(_[a-z]\w*)", text)}


def classes_over_keras() -> list[type]:
    found = {}
    for info in pkgutil.walk_packages([str(ROOT)], "tfloader."):
        if not info.name.endswith("__main__"):
            for value in vars(importlib.import_module(info.name)).values():
                if isinstance(value, type) and value.__module__ == info.name:
                    found[value.__qualname__] = value
    return [item for item in found.values() if any(base.__module__.startswith("keras.") for base in item.__mro__)] + [
        type(item.__name__, (item, keras.optimizers.Optimizer), {"__module__": item.__module__})
        for item in found.values()
        if issubclass(item, tfloader.optimizers.Extension | tfloader.optimizers.extension.WholeGradients)
        and not issubclass(item, keras.optimizers.Optimizer)
    ]


def test_no_class_of_ours_uses_or_hides_a_private_name_of_its_base_in_keras():
    classes = classes_over_keras()
    assert len(classes) > 30
    for item in classes:
        bases = [base for base in item.__mro__ if base.__module__.startswith("keras.")]
        taken = private_names_of(bases)
        for own in item.__mro__:
            if own.__module__.startswith("tfloader.") and own.__module__ != "tfloader.keras_private":
                try:
                    used = private_names_of([own])
                except (OSError, TypeError):  # the classes that this test has made
                    continue
                assert not used & taken, f"{own.__module__}.{own.__qualname__}: {used & taken}"


def test_layers_are_those_that_keras_tracks():
    model = tfloader.load(Path(__file__).parent / "fixtures/checkpoints/bert_google", with_mlm=True)
    theirs = model._flatten_layers(include_self=False)
    assert {id(layer) for layer in all_layers(model)} == {id(layer) for layer in theirs}


def test_the_index_of_a_variable_is_its_place_in_build_also_within_an_update():
    seen = []

    class Watching(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            seen.append(keras_private.variable_index(self, variable))
            super().update_step(gradient, variable, learning_rate)

    optimizer, variables = Watching(0.1), [keras.Variable(np.ones(2)), keras.Variable(np.ones(3))]
    optimizer.build(variables)
    assert [keras_private.variable_index(optimizer, item) for item in variables] == [0, 1]
    optimizer.apply([tf.ones(2), tf.ones(3)], variables)
    assert seen == [0, 1]


@pytest.mark.parametrize("accumulation", [None, 2])
def test_the_clip_hook_gets_gradients_unscaled_and_accumulated_just_before_the_update(accumulation):
    seen = []

    class Hooked(keras_private.ClipHook, keras.optimizers.SGD):
        def clip_gradients(self, gradients, clip):
            seen.append([np.array(item).tolist() for item in gradients])
            return clip(gradients)

    optimizer = Hooked(1.0, clipnorm=1.0, loss_scale_factor=4.0, gradient_accumulation_steps=accumulation)
    variable = keras.Variable(np.zeros(2, "float32"))
    optimizer.build([variable])
    for _ in range(accumulation or 1):
        optimizer.apply([tf.constant([12.0, 16.0])], [variable])
    assert seen == [[[3.0, 4.0]]]
    np.testing.assert_allclose(variable, [-0.6, -0.8], rtol=1e-6)


def test_a_layer_finds_the_model_that_trains_it_and_leaves_no_trace_of_the_question():
    seen = []

    class Asking(keras.layers.Layer):
        def call(self, x):
            seen.append(keras_private.training_model(self))
            return x

    layer = Asking()
    layer(np.zeros((1, 1)))
    layer.call(np.zeros((1, 1)))
    layer(np.zeros((1, 1)), training=True)
    inputs = keras.Input((1,))
    inner = keras.Model(inputs, layer(inputs))
    model = keras.Sequential([keras.Input((1,)), inner, keras.layers.Dense(1)])
    model(np.zeros((1, 1)), training=True)
    assert not any(seen)
    model.compile("sgd", "mse")
    model.predict(np.zeros((1, 1)), verbose=0)
    assert not any(seen)
    model.fit(np.zeros((1, 1)), np.zeros((1, 1)), verbose=0)
    assert seen[-1] is model


def test_a_loss_finds_the_training_that_it_is_called_for():
    seen = []

    def loss(y_true, y_pred):
        seen.append(keras_private.training_arguments())
        return y_true - y_pred

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", loss, run_eagerly=True)
    x = np.zeros((1, 1))
    judge = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: model.evaluate(x, x, verbose=0))
    model.fit(x, x, class_weight={0: 2.0}, callbacks=[judge], verbose=0)
    model.train_on_batch(x, x, class_weight={0: 3.0})
    loss(x, x)
    assert [item.get("class_weight") for item in seen] == [{0: 2.0}, None, {0: 3.0}, None]
    assert [item.get("self") for item in seen] == [model, None, model, None]


def test_keras_reads_the_first_two_batches_for_their_shapes_and_is_recognised():
    asked = []

    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            asked.append((index, keras_private.is_asked_for_shapes()))
            return np.zeros((2, 1)), np.zeros((2, 1))

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(Data(), verbose=0, shuffle=False)
    assert asked[:2] == [(0, True), (1, True)] and not any(flag for _, flag in asked[2:])
    assert Data()[1] is not None and asked[-1] == (1, False)
