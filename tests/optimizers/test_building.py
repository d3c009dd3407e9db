"""Optimizers are built before their first step: it leaves loaded weights as they are, and is traced once."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

import tfloader
from tests.optimizers import small
from tfloader import optimizers
from tfloader.errors import TrainingError

BERT = str(Path(__file__).parents[1] / "fixtures/checkpoints/bert_google")
IDS = np.array([[2, 5, 6, 3], [2, 7, 8, 3]])
# Copies the weights when it is built; Keras has it from 3.15 on.
ScheduleFree = getattr(keras.optimizers, "ScheduleFreeAdamW", keras.optimizers.AdamW)


def classifier() -> keras.Model:
    bert = tfloader.load(BERT, with_pool=True, num_hidden_layers=1)
    return keras.Model(bert.inputs, keras.layers.Dense(2)(bert.output))


class Classifier(keras.Model):
    """The head has no variables before the first call."""

    def __init__(self):
        super().__init__()
        self.bert, self.head = tfloader.load(BERT, with_pool=True, num_hidden_layers=1), keras.layers.Dense(2)

    def call(self, inputs, training=False):
        return self.head(self.bert(inputs, training=training))


def traces(model, optimizer, x=(IDS, 0 * IDS), y=0.0 * IDS[:, :2], **compiling):
    """How often the step is traced when a model is fitted for one."""
    found, step = [], model.train_step
    model.train_step = lambda data: found.append(data) or step(data)
    model.compile(optimizer, "mse", **compiling)
    model.fit(x, y, batch_size=len(y), verbose=0)
    return len(found)


@pytest.mark.parametrize(
    ("made", "compiling"),
    [
        (keras.optimizers.Adam, {}),
        (ScheduleFree, {"jit_compile": True}),
        (optimizers.extend(ScheduleFree, optimizers.GradientAccumulation), {"steps_per_execution": 2}),
        (lambda rate: keras.optimizers.LossScaleOptimizer(ScheduleFree(rate)), {}),
    ],
    ids=["Adam", "XLA", "extended", "scaled"],
)
def test_the_first_step_of_a_loaded_model_is_traced_once_and_erases_nothing(made, compiling):
    model = classifier()
    before = model.get_weights()
    assert traces(model, made(1e-9), **compiling) == 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


@pytest.mark.parametrize("made", [optimizers.extend(ScheduleFree), optimizers.extend_with_lookahead(optimizers.Adam)])
def test_optimizers_of_the_package_are_built_so_for_any_model(made):
    model = small.model()
    before = model.get_weights()
    assert traces(model, made(1e-9), *small.data()) == 1
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


@pytest.mark.parametrize("made", [ScheduleFree, optimizers.extend(ScheduleFree)])
def test_weights_survive_where_some_variables_come_with_the_first_step(made):
    model = Classifier()
    before = model.bert.get_weights()
    traces(model, made(1e-9))
    for old, new in zip(before, model.bert.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


HEADS = {
    "pointer": (tfloader.GlobalPointer(2, 4), "mse", ()),
    "cosines": (tfloader.CosineDense(3), "mse", ()),
    "loss": (keras.layers.Dense(3), tfloader.MultilabelCategoricalCrossentropy(), ()),
    "callback": (keras.layers.Dense(3), "mse", (tfloader.StopOnNaN(),)),
}


@pytest.mark.parametrize("name", HEADS)
def test_whatever_of_the_package_is_in_a_training_has_the_optimizer_built(name):
    head, loss, callbacks = HEADS[name]
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(4), head])
    before, x = model.get_weights(), np.ones((2, 3, 4))
    model.compile(ScheduleFree(1e-9), loss)
    model.fit(x, np.zeros(model.compute_output_shape(x.shape)), callbacks=list(callbacks), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, atol=1e-6)


def test_a_loss_as_a_layer_has_the_optimizer_built():
    hidden, labels = keras.Input((4,)), keras.Input((), dtype="int32")
    layer = tfloader.SampledSoftmax(7, 3)
    model = keras.Model([hidden, labels], layer([hidden, labels]))
    before = layer.kernel.numpy()
    model.compile(ScheduleFree(1e-9))
    model.fit([np.ones((2, 4)), np.ones(2)], verbose=0)
    np.testing.assert_allclose(layer.kernel, before, atol=1e-6)


@pytest.mark.skipif(ScheduleFree is keras.optimizers.AdamW, reason="Keras before 3.15 has no optimizer that copies")
@pytest.mark.parametrize("made", [ScheduleFree, optimizers.extend(ScheduleFree)])
def test_an_optimizer_that_copies_weights_is_refused_where_the_first_step_makes_them(made):
    model = keras.Sequential([keras.layers.Dense(3)])
    model.compile(made(1e-9), tfloader.MultilabelCategoricalCrossentropy())
    with pytest.raises(TrainingError, match="Call the model on a batch before you compile it"):
        model.fit(np.ones((2, 4)), np.zeros((2, 3)), verbose=0)


def test_an_optimizer_that_starts_from_weights_of_zero_is_refused():
    with pytest.raises(TrainingError, match="Ftrl starts from weights of zero"):
        traces(classifier(), "ftrl")
    with pytest.raises(TrainingError, match="Ftrl cannot have ParameterWiseLearningRate"):
        optimizers.extend_with_parameter_wise_lr(keras.optimizers.Ftrl)


def test_calling_a_compiled_model_builds_nothing():
    model = classifier()
    model.compile("adam", "mse")
    model([IDS, 0 * IDS], training=True)
    model.predict([IDS, 0 * IDS], verbose=0)
    model.evaluate([IDS, 0 * IDS], np.zeros((2, 2)), verbose=0)
    assert not model.optimizer.built


def tagged(optimizer, lr_multiplier):
    """One step of a CRF on an encoder that is not tfloader's."""
    inputs = keras.Input((3, 4))
    crf = tfloader.ConditionalRandomField(lr_multiplier, name="crf")
    model = keras.Model(inputs, crf(keras.layers.Dense(5)(inputs)))
    model.compile(optimizer, crf.sparse_loss)
    model.fit(np.ones((2, 3, 4)), np.ones((2, 3)), verbose=0)


BY_WEIGHTS = {
    "Lamb": keras.optimizers.Lamb,
    "Adafactor": keras.optimizers.Adafactor,
    "AdaFactor": optimizers.AdaFactor,
    "layer adaptation": optimizers.extend_with_layer_adaptation(keras.optimizers.Adam),
}


@pytest.mark.parametrize("name", BY_WEIGHTS)
def test_a_multiplier_of_a_layer_is_refused_under_optimizers_that_would_undo_it(name):
    with pytest.raises(TrainingError, match=r"crf: lr_multiplier=100 .* crf/transitions by the size of the weights"):
        tagged(BY_WEIGHTS[name](1e-3), 100)
    tagged(BY_WEIGHTS[name](1e-3), 1)


def test_a_multiplier_of_a_layer_goes_with_optimizers_that_leave_it_out():
    tagged(optimizers.AdaFactor(1e-3, exclude_from_parameter_scale="crf"), 100)
    tagged(BY_WEIGHTS["layer adaptation"](1e-3, exclude_from_layer_adaptation="crf"), 100)
    tagged(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-3)), 100)
