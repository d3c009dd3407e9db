"""Schedules of straight lines, multipliers by name, and layer-wise decay on a BERT and a T5."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tfloader
from tests.conftest import CHECKPOINTS
from tests.optimizers import reference, small
from tests.optimizers.reference import train, variables
from tfloader import optimizers
from tfloader.errors import TrainingError

POINTS = st.dictionaries(st.integers(0, 10**6), st.floats(0, 8, width=32), min_size=1)


@given(POINTS, st.integers(0, 2 * 10**6))
def test_a_schedule_is_linear_between_its_points_and_starts_at_zero(points, step):
    points_and_start = {0: 0.0, **points}
    steps = sorted(points_and_start)
    expected = 0.5 * np.interp(step, steps, [points_and_start[step] for step in steps])
    schedule = optimizers.PiecewiseLinear(0.5, points)
    np.testing.assert_allclose(schedule(step), expected, rtol=1e-5, atol=1e-6)
    read = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert read.points == schedule.points and read.learning_rate == schedule.learning_rate


def test_bert4keras_schedule_rises_to_one_and_falls_to_a_tenth():
    schedule = optimizers.PiecewiseLinear(2e-5, {1000: 1, 10000: 0.1})
    found = [float(schedule(step)) for step in (0, 500, 1000, 5500, 10000, 10**6)]
    np.testing.assert_allclose(found, np.array([0, 0.5, 1, 0.55, 0.1, 0.1]) * 2e-5, rtol=1e-6)
    assert float(optimizers.PiecewiseLinear(2e-5, {0: 1})(0)) == pytest.approx(2e-5)
    assert optimizers.PiecewiseLinear(1.0, {"10": "1"}).points == [(0, 0.0), (10, 1.0)]  # as JSON gives it back


def test_the_schedule_counts_updates_and_cannot_be_overruled():
    made = optimizers.extend(
        keras.optimizers.SGD, optimizers.GradientAccumulation, optimizers.PiecewiseLinearLearningRate
    )
    optimizer = made(1.0, lr_schedule={4: 1}, grad_accum_steps=3)
    (variable,) = variables({"a/kernel": np.zeros(1)}, "float32")
    rates, values = [], []
    for _ in range(9):
        rates.append(float(optimizer.learning_rate))
        optimizer.apply([keras.ops.ones(1)], [variable])
        values.append(float(variable[0]))
    assert rates == [0.0] * 3 + [0.25] * 3 + [0.5] * 3
    assert values == [0.0] * 5 + [-0.25] * 3 + [-0.75]
    with pytest.raises(TrainingError, match="lr_schedule"):
        optimizer.learning_rate = 0.1


def test_the_schedule_multiplies_whatever_the_learning_rate_is():
    made = optimizers.extend_with_piecewise_linear_lr(keras.optimizers.SGD)
    halving = keras.optimizers.schedules.ExponentialDecay(8.0, 1, 0.5)
    for rate, expected in ((8.0, 4.0), (halving, 2.0)):
        optimizer = made(rate, lr_schedule={4: 1.0})
        optimizer._iterations.assign(2)
        assert float(optimizer.learning_rate) == expected * (1 if rate == 8.0 else 0.5)
    optimizer = optimizers.extend_with_piecewise_linear_lr(optimizers.AdaFactor)(None, lr_schedule={4: 1.0})
    optimizer._iterations.assign(2)
    np.testing.assert_allclose(optimizer.learning_rate, 0.005, rtol=1e-6)


# From weights of zero, a step that is m times as long is so in every bit where m is a power of two.
LINEAR = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {"momentum": 0.9},
    "Adagrad": {},
    "Adadelta": {},
    "Adam": {"amsgrad": True},
    "Adamax": {},
    "Nadam": {},
    "Lion": {},
}


@pytest.mark.parametrize("name", [*LINEAR, "AdaFactor"])
def test_a_multiplier_makes_every_step_exactly_that_many_times_as_long(name):
    theirs = optimizers.AdaFactor if name == "AdaFactor" else getattr(keras.optimizers, name)
    arguments = {"beta1": 0.5, "multiply_by_parameter_scale": False} if name == "AdaFactor" else LINEAR[name]
    zeros = {path: np.zeros(shape) for path, shape in reference.SHAPES.items()}
    plain, _ = train(theirs(reference.RATE, **arguments), zeros, reference.gradients()[:3], "float32")
    made = optimizers.extend_with_parameter_wise_lr(theirs)
    table = {"kernel": 4, "table": 0.125, "bias": 0}
    found, _ = train(
        made(reference.RATE, paramwise_lr_schedule=table, **arguments), zeros, reference.gradients()[:3], "float32"
    )
    for one, two in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one["dense/kernel"], 4 * two["dense/kernel"])
        np.testing.assert_array_equal(one["table/embeddings"], two["table/embeddings"] / 8)
        np.testing.assert_array_equal(one["dense/bias"], 0)


def test_a_multiplier_of_zero_freezes_decay_included():
    made = optimizers.extend_with_parameter_wise_lr(keras.optimizers.AdamW)
    frozen = small.model().get_layer("dense").get_weights()
    model = small.fit(made(0.1, weight_decay=0.1, paramwise_lr_schedule={"^dense/": 0}))
    for before, after in zip(frozen, model.get_layer("dense").get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_pattern_without_a_variable_is_refused_before_training():
    made = optimizers.extend_with_parameter_wise_lr(keras.optimizers.Adam)
    with pytest.raises(TrainingError, match=r"'dence/'; did you mean 'dense'"):
        small.fit(made(0.1, paramwise_lr_schedule={"dence/": 0.1}))


def test_layer_wise_decay_of_a_bert():
    bert = tfloader.load(str(CHECKPOINTS / "bert_google"))
    x = keras.layers.Dense(4, name="Sentence-Embedding")(bert.output[:, 0])
    model = keras.Model(bert.inputs, keras.layers.Dense(2, name="Classifier")(x))
    table = optimizers.layer_wise_decay(model, 0.5)
    assert table == {
        "re:^Embedding-Token/": 0.0625,
        "re:^Embedding-Segment/": 0.0625,
        "re:^Embedding-Position/": 0.0625,
        "re:^Embedding-Norm/": 0.0625,
        "re:^Transformer-0": 0.125,
        "re:^Transformer-1": 0.25,
        "re:^Transformer-2": 0.5,
    }
    optimizer = optimizers.extend_with_parameter_wise_lr(keras.optimizers.SGD)(1.0, paramwise_lr_schedule=table)
    before = model.get_weights()
    optimizer.apply([keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables)
    rates = {"Embedding": 0.0625, "Transformer-0": 0.125, "Transformer-1": 0.25, "Transformer-2": 0.5}
    rates |= {"Sentence-Embedding": 1, "Classifier": 1}
    for variable, old in zip(model.trainable_variables, before, strict=True):
        (expected,) = [rate for start, rate in rates.items() if variable.path.startswith(start)]
        np.testing.assert_allclose(old - variable.numpy(), expected, rtol=1e-4)


def test_layer_wise_decay_counts_each_stack_of_a_t5_and_leaves_frozen_layers_out():
    model = tfloader.load(str(CHECKPOINTS / "t5_mesh_v10"))
    model.get_layer("Embedding-Token").trainable = False
    for layer in model.layers:
        if "Transformer-2" in layer.name and layer.name.startswith("Decoder"):
            layer.trainable = False
    table = optimizers.layer_wise_decay(model, 0.5)
    assert table["re:^Encoder-Transformer-2"] == 0.5 and "re:^Decoder-Transformer-2" not in table
    assert table["re:^Encoder-Transformer-0"] == table["re:^Decoder-Transformer-0"] == 0.125
    assert table["re:^Encoder-Embedding-Relative-Position/"] == 0.0625
    assert "re:^Embedding-Token/" not in table and not any("Output-Norm" in pattern for pattern in table)
    optimizers.extend_with_parameter_wise_lr(keras.optimizers.Adam)(paramwise_lr_schedule=table).build(
        model.trainable_variables
    )


def test_layer_wise_decay_of_other_names_and_more_than_ten_blocks():
    model = keras.Sequential(
        [keras.Input((2,))]
        + [keras.layers.Dense(2, name=name) for name in ("stem", *(f"block_{index}" for index in range(12)), "head")]
    )
    table = optimizers.layer_wise_decay(model, 0.5, block=r"block_(\d+)", embeddings="stem")
    optimizer = optimizers.extend_with_parameter_wise_lr(keras.optimizers.SGD)(1.0, paramwise_lr_schedule=table)
    optimizer.build(model.trainable_variables)
    expected = [2.0**-13] * 2 + [2.0 ** -(12 - index // 2) for index in range(24)] + [1.0] * 2
    assert list(optimizer._multipliers) == expected
    with pytest.raises(TrainingError, match="Transformer"):
        optimizers.layer_wise_decay(model)
    with pytest.raises(TrainingError, match="decay"):
        optimizers.layer_wise_decay(model, 1.5)
