"""Parts on Keras' optimizers, alone, in pairs and all together, against NumPy."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.optimizers import reference
from tests.optimizers.reference import Reference, largest_error, train
from tfloader import optimizers
from tfloader.errors import TfloaderError, TrainingError
from tfloader.optimizers.extended import EXTENSIONS, REFUSED

RATE = reference.RATE
# Keras rounds its constants to float32 even for float64 variables, as 0.999; 0.5 survives that.
RULES = {
    "sgd": (keras.optimizers.SGD, {"momentum": 0.5}, reference.Sgd(0.5), 1e-12),
    "adam": (keras.optimizers.Adam, {}, reference.Adam(), 1e-5),
    "tfloader_adam": (optimizers.Adam, {"epsilon": 1e-6}, reference.Adam(1e-6, keras=False), 1e-12),
}
# Part, its arguments, and the same for the reference. Lazy updates and layer adaptation go to different variables.
PARTS = {
    "accumulation": (optimizers.GradientAccumulation, {"grad_accum_steps": 2}, {"accumulate": 2}),
    "schedule": (
        optimizers.PiecewiseLinearLearningRate,
        {"lr_schedule": {2: 1, 6: 0.5}},
        {"schedule": {2: 1.0, 6: 0.5}},
    ),
    "average": (optimizers.ExponentialMovingAverage, {"ema_momentum": 0.75}, {"average": 0.75}),
    "lookahead": (
        optimizers.Lookahead,
        {"steps_per_slow_update": 2, "slow_step_size": 0.5},
        {"slow_every": 2, "slow_step": 0.5},
    ),
    "multipliers": (
        optimizers.ParameterWiseLearningRate,
        {"paramwise_lr_schedule": {"^dense/": 4, "kernel": 0.5, "table": 0.25}},
        {"multipliers": {"dense/kernel": 2.0, "dense/bias": 4.0, "table/embeddings": 0.25}},
    ),
    "decay": (optimizers.WeightDecay, {"weight_decay_rate": 0.125}, {"decay": 0.125, "undecayed": ("dense/bias",)}),
    "adaptation": (
        optimizers.LayerAdaptation,
        {"exclude_from_layer_adaptation": ["table"]},
        {"adapted": ("dense/kernel", "dense/bias")},
    ),
    "lazy": (optimizers.LazyOptimization, {"include_in_lazy_optimization": ["table"]}, {"lazy": ("table/embeddings",)}),
    # Keras' own arguments, which must fit all parts.
    "clipnorm": (None, {"clipnorm": 0.5}, {"clipnorm": 0.5}),
    "global_clipnorm": (None, {"global_clipnorm": 0.5}, {"global_clipnorm": 0.5}),
}
OWN = [name for name, (part, _, _) in PARTS.items() if part]
PAIRS = [pair for pair in itertools.combinations(PARTS, 2) if set(pair) & set(OWN)]


def check(rule: str, names: tuple[str, ...]) -> None:
    base, arguments, expected_rule, tolerance = RULES[rule]
    arguments, expected = dict(arguments), {}
    for name in names:
        arguments |= PARTS[name][1]
        expected |= PARTS[name][2]
    made = optimizers.extend(base, *(PARTS[name][0] for name in names if PARTS[name][0]))
    optimizer = made(reference.RATE, **arguments)
    found, variables = train(optimizer, reference.starts(), reference.gradients())
    history, averages = Reference(expected_rule, **expected).run(reference.starts(), reference.gradients())
    assert largest_error(found, history) <= tolerance
    if "average" in names:
        with optimizer.ema_weights():
            inside = {variable.path: np.array(variable) for variable in variables}
        # An average is no nearer to the float64 reference than the weights are (`tolerance`: Keras' Adam is 1e-5 off,
        # see RULES), nor than float32, in which the share of an update is computed.
        assert largest_error([inside], [averages]) <= max(tolerance, 1e-6)
        for variable in variables:
            np.testing.assert_array_equal(variable, found[-1][variable.path])


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("rule", RULES)
def test_each_part_does_what_its_formula_says(rule, name):
    check(rule, (name,))


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_each_pair_does_what_both_formulas_say(pair):
    check("tfloader_adam", pair)


@settings(max_examples=6)
@given(st.sets(st.sampled_from([name for name in PARTS if name != "clipnorm"]), min_size=3), st.sampled_from([*RULES]))
def test_any_number_of_parts_does_what_all_formulas_say(names, rule):
    check(rule, tuple(sorted(names)))


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations(EXTENSIONS, 2)))
def test_the_order_of_extending_does_not_matter(one, two):
    first = optimizers.extend(optimizers.extend(keras.optimizers.Adam, one), two)
    second = optimizers.extend(optimizers.extend(keras.optimizers.Adam, two), one)
    assert first.parts == second.parts == tuple(part for part in EXTENSIONS if part in (one, two))


BUILT_IN = [
    name
    for name, made in vars(keras.optimizers).items()
    if isinstance(made, type)
    and issubclass(made, keras.optimizers.Optimizer)
    and made is not keras.optimizers.Optimizer
]


# Parts that change nothing with these arguments, though all their hooks are taken.
NEUTRAL = {
    "GradientAccumulation": {"grad_accum_steps": 1},
    "ExponentialMovingAverage": {},
    "Lookahead": {"steps_per_slow_update": 10**6},
    "ParameterWiseLearningRate": {"paramwise_lr_schedule": {"dense": 1.0}},
    "LayerAdaptation": {"exclude_from_layer_adaptation": ["dense", "table"]},
    "LazyOptimization": {},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_optimizer_of_keras_is_extended_without_changing_a_bit_or_refused_with_a_reason(name):
    theirs, arguments = getattr(keras.optimizers, name), {}
    refused, reason = REFUSED.get(name, ((), ""))
    parts = [getattr(optimizers, part) for part in NEUTRAL]
    for part in parts:
        if issubclass(part, refused):
            with pytest.raises(TrainingError, match=reason[:30]):
                optimizers.extend(theirs, part)
        else:
            arguments |= NEUTRAL[part.__name__]
    if not arguments:
        return
    extended = optimizers.extend(theirs, *(part for part in parts if not issubclass(part, refused)))(RATE, **arguments)
    data = reference.starts(), reference.gradients()[:3]
    assert largest_error(train(extended, *data, "float32")[0], train(theirs(RATE), *data, "float32")[0]) == 0


ADAPTABLE = [name for name in BUILT_IN if not issubclass(optimizers.LayerAdaptation, REFUSED.get(name, ((), ""))[0])]


@pytest.mark.parametrize("name", ADAPTABLE)
def test_layer_adaptation_gives_every_optimizer_a_step_of_the_length_of_the_weights(name):
    made = optimizers.extend(getattr(keras.optimizers, name), optimizers.LayerAdaptation)(RATE)
    before = reference.starts()
    (after,), _ = train(made, before, reference.gradients()[:1])
    for path in ("table/embeddings", "dense/kernel"):
        length = np.linalg.norm(after[path] - before[path])
        np.testing.assert_allclose(length, RATE * np.linalg.norm(before[path]), rtol=1e-6)


def test_what_cannot_be_extended_is_refused():
    adam, part = keras.optimizers.Adam, optimizers.Lookahead
    for wrong in (adam(), "adam", keras.Model):
        with pytest.raises(TrainingError, match="Only a class of optimizers"):
            optimizers.extend(wrong, part)
    with pytest.raises(TrainingError, match="Lookahead is there already"):
        optimizers.extend(optimizers.extend(adam, part), part)
    with pytest.raises(TrainingError, match="wraps an optimizer"):
        optimizers.extend(keras.optimizers.LossScaleOptimizer)


@pytest.mark.parametrize(
    ("part", "arguments", "message"),
    [
        ("GradientAccumulation", {"gradient_accumulation_steps": 2}, "a second time"),
        ("GradientAccumulation", {"grad_accum_steps": 0}, "whole number"),
        ("GradientAccumulation", {"grad_accum_steps": "2"}, "expected int, found str"),
        ("GradientAccumulation", {"grad_accum_steps": 1.5}, "expected int, found float"),
        ("ExponentialMovingAverage", {"gradient_accumulation_steps": 2}, "extend_with_gradient_accumulation"),
        ("ExponentialMovingAverage", {"use_ema": True}, "leave out use_ema"),
        ("ExponentialMovingAverage", {"ema_momentum": 1.0}, "between 0 and 1"),
        ("Lookahead", {"use_ema": True}, "use_ema"),
        ("Lookahead", {"steps_per_slow_update": 0}, "whole number"),
        ("Lookahead", {"slow_step_size": 0.0}, "above 0"),
        ("WeightDecay", {"weight_decay": 0.1}, "weight_decay_rate"),
        ("PiecewiseLinearLearningRate", {"lr_schedule": {}}, "lr_schedule"),
        ("PiecewiseLinearLearningRate", {"lr_schedule": {-1: 1}}, "lr_schedule"),
        ("PiecewiseLinearLearningRate", {"lr_schedule": {1: -1}}, "lr_schedule"),
        ("PiecewiseLinearLearningRate", {"lr_schedule": {"ten": 1}}, "lr_schedule"),
        ("ParameterWiseLearningRate", {"paramwise_lr_schedule": {"a": -1}}, "a finite number of at least 0, found -1"),
        ("ParameterWiseLearningRate", {"paramwise_lr_schedule": {"a": float("nan")}}, "nan"),
    ],
)
def test_wrong_arguments_and_those_that_clash_are_refused_with_a_reason(part, arguments, message):
    with pytest.raises(TfloaderError, match=message):
        optimizers.extend(keras.optimizers.Adam, getattr(optimizers, part))(0.1, **arguments)


@pytest.mark.parametrize(
    "name",
    [
        "gradient_accumulation",
        "piecewise_linear_lr",
        "exponential_moving_average",
        "lookahead",
        "parameter_wise_lr",
        "weight_decay",
        "layer_adaptation",
        "lazy_optimization",
    ],
)
def test_bert4keras_names_take_a_class_and_a_name_and_return_a_class(name):
    extender = getattr(optimizers, f"extend_with_{name}")
    made = extender(keras.optimizers.Adam, "AdamX")
    assert made.__name__ == "AdamX" and issubclass(made, keras.optimizers.Adam) and len(made.parts) == 1
    assert getattr(optimizers, f"extend_with_{name}_v2") is extender


def test_bert4keras_pretraining_optimizer_trains_as_in_numpy():
    """Its script for RoBERTa: decay, layer adaptation, schedule and accumulation, by its names and arguments."""
    made = optimizers.extend_with_weight_decay(optimizers.Adam, name="AdamW")
    made = optimizers.extend_with_layer_adaptation(made, name="LAMB")
    made = optimizers.extend_with_piecewise_linear_lr(made, name="LAMBLR")
    made = optimizers.extend_with_gradient_accumulation(made, name="LAMBLRG")
    optimizer = made(
        learning_rate=RATE,
        lr_schedule={2: 1.0, 8: 0.0},
        weight_decay_rate=0.01,
        exclude_from_weight_decay=["bias"],
        exclude_from_layer_adaptation=["bias"],
        bias_correction=False,
        grad_accum_steps=2,
    )
    found, _ = train(optimizer, reference.starts(), reference.gradients())
    expected, _ = Reference(
        reference.Adam(1e-6, keras=False, correction=False),
        decay=0.01,
        undecayed=("dense/bias",),
        adapted=("dense/kernel", "table/embeddings"),
        schedule={2: 1.0, 8: 0.0},
        accumulate=2,
    ).run(reference.starts(), reference.gradients())
    assert largest_error(found, expected) < 1e-9
