"""Freezing by name: what moves, what does not, what the optimizer keeps, and what errors say."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.errors import TrainingError

TOKENS = [np.array([[2, 5, 6, 3], [2, 7, 8, 3]]), np.zeros((2, 4), "int32")]
LABELS = np.array([0, 1])


def classifier(name="bert_google"):
    bert = tfloader.load(CHECKPOINTS / name)
    return keras.Model(bert.inputs, keras.layers.Dense(2, name="Head")(bert.output[:, 0]))


def small():
    return keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(2, name=name) for name in ("first", "last"))])


def train(model):
    """Paths of the weights that a step of training changes."""
    before = [np.array(item) for item in model.weights]
    inputs = TOKENS if len(model.inputs) > 1 else TOKENS[0].astype("float32")
    model.fit(inputs, LABELS, verbose=0)
    return {item.path for item, old in zip(model.weights, before, strict=True) if not np.array_equal(item, old)}


def moved(model, run_eagerly=True):
    """The same after compiling."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, run_eagerly=run_eagerly)
    return train(model)


def paths(model, *parts):
    return {item.path for item in model.weights if any(part in item.path for part in parts)}


@pytest.mark.parametrize(
    ("patterns", "frozen"),
    [
        ("Embedding-Token", ["Embedding-Token/"]),
        (["Embedding-*", "Transformer-[01]-*"], ["Embedding-", "Transformer-0-", "Transformer-1-"]),
        ("*/bias", ["/bias"]),
        (["query", "Transformer-2-*/value"], ["/query/", "Transformer-2-MultiHeadSelfAttention/value/"]),
        ("Transformer-0-MultiHeadSelfAttention/output_dense/kernel", ["Transformer-0-MultiHeadSelfAttention/output_d"]),
    ],
)
def test_a_pattern_freezes_what_its_path_or_a_layer_that_holds_it_fits(patterns, frozen):
    model = classifier()
    expected = {path for path in paths(model, *frozen) if "output_dense" not in str(patterns) or "kernel" in path}
    report = tfloader.freeze(model, patterns)
    assert set(report.frozen) == expected
    assert not expected & moved(model)
    # The embedding of positions 4 and on has no gradient; all others move.
    assert set(report.trainable) == paths(model, "") - expected


def test_frozen_variables_have_no_optimizer_state_and_the_report_counts():
    model = classifier()
    report = tfloader.freeze(model)
    assert report.trainable == [] and report.trainable_parameters == 0
    report = tfloader.unfreeze(model, "Head")
    assert report.trainable == ["Head/kernel", "Head/bias"]
    assert moved(model) == {"Head/kernel", "Head/bias"}
    # Adam: two moments each, iterations and learning rate.
    assert len(model.optimizer.variables) == 2 * 2 + 2
    size = sum(np.prod(item.shape) for item in model.weights)
    head = 2 * model.get_layer("Head").kernel.shape[0] + 2
    assert (report.trainable_parameters, report.frozen_parameters) == (head, size - head)
    assert str(report).startswith(f"{head:,} of {size:,} parameters train")
    assert "in 2 of " in str(report)


def test_freezing_after_a_fit_takes_effect_without_compiling_again():
    model = small()
    everything = paths(model, "")
    assert moved(model, run_eagerly=False) == everything
    tfloader.freeze(model, "first")
    assert train(model) == paths(model, "last")
    tfloader.unfreeze(model)
    assert train(model) == everything


def test_what_the_optimizer_never_saw_is_refused_until_compiled_again():
    model = small()
    tfloader.freeze(model, "first")
    moved(model, run_eagerly=False)
    tfloader.unfreeze(model, "first")
    with pytest.raises(ValueError, match="Unknown variable"):
        train(model)
    assert moved(model, run_eagerly=False) == paths(model, "")


def test_parts_of_a_frozen_layer_can_train_alone():
    model = classifier()
    model.get_layer("Transformer-0-MultiHeadSelfAttention").trainable = False
    report = tfloader.unfreeze(model, "Transformer-0-*/query")
    frozen = paths(model, "Transformer-0-MultiHeadSelfAttention/") - paths(model, "/query/")
    assert set(report.frozen) == frozen
    assert not moved(model) & frozen


def test_layers_of_a_model_in_a_model_are_found_by_their_names_and_its_own():
    bert = tfloader.load(CHECKPOINTS / "bert_google")
    encoder = keras.Model(bert.inputs, bert.output, name="encoder")
    inputs = [keras.Input((None,), dtype="int32") for _ in range(2)]
    model = keras.Model(inputs, keras.layers.Dense(2, name="Head")(encoder(inputs)[:, 0]))
    assert tfloader.freeze(model, "encoder").trainable == ["Head/kernel", "Head/bias"]
    report = tfloader.unfreeze(model, "Transformer-1-FeedForward-Norm")
    assert len(report.trainable) == 4
    assert moved(model) == set(report.trainable)


def test_statistics_never_train():
    model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization(name="norm"), keras.layers.Dense(1)])
    tfloader.freeze(model)
    assert not any("moving" in path for path in tfloader.unfreeze(model).trainable)


def test_wholly_frozen_layers_have_the_flag_of_keras_and_others_do_not():
    """A batch norm, say, then keeps its statistics."""
    model = classifier()
    tfloader.freeze(model, ["Embedding-Token", "Transformer-1-*", "Transformer-0-*/bias"])
    frozen = {layer.name for layer in model.layers if not layer.trainable}
    inner = {layer.name for layer in model.layers if layer.name.startswith("Transformer-1-") and layer.weights}
    assert frozen == {"Embedding-Token", *inner}


def test_patterns_that_fit_nothing_are_named_with_near_names_and_nothing_is_frozen():
    model = classifier()
    with pytest.raises(TrainingError) as error:
        tfloader.freeze(model, ["Embedding-Token", "Embeding-Position", "Transformer-9-*"])
    assert "'Embeding-Position'; did you mean 'Embedding-Position" in str(error.value)
    assert (
        "'Transformer-9-*'" in str(error.value) and "'Embedding-Token'" not in str(error.value).split("did you mean")[0]
    )
    assert len(model.trainable_weights) == len(model.weights)
