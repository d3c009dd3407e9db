"""All parts at once in compiled training: replicas, loss scaling, mixed precision, several steps a call, XLA."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.optimizers import small
from tests.optimizers.reference import variables
from tests.optimizers.test_saving import ARGUMENTS
from tfloader import optimizers
from tfloader.optimizers.extended import EXTENSIONS

All = optimizers.extend(keras.optimizers.Adam, *EXTENSIONS)


def all_parts():
    return All(0.05, **{**ARGUMENTS, "grad_accum_steps": 2, "global_clipnorm": 0.1})


OPTIMIZERS = {
    "all parts": all_parts,
    "all parts, loss scaling": lambda: keras.optimizers.LossScaleOptimizer(all_parts(), initial_scale=8.0),
    # Unlike Adam, SGD feels it when a gradient is off by a factor.
    "accumulation": lambda: optimizers.extend(keras.optimizers.SGD, optimizers.GradientAccumulation)(0.1),
    "clipping": lambda: optimizers.extend(keras.optimizers.SGD)(0.1, global_clipnorm=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_replicas_train_as_one(name, two_replicas):
    one = small.fit(OPTIMIZERS[name]())
    with two_replicas.scope():
        model, optimizer = small.model(), OPTIMIZERS[name]()
    two = small.fit(optimizer, start=model, run_eagerly=False)
    assert small.difference(one, two) < 1e-6
    for variable in (*two.weights, *two.optimizer.variables):
        copies = two_replicas.experimental_local_results(variable.value)
        assert len(copies) == 2
        np.testing.assert_array_equal(*copies)
    if name == "all parts":
        before = two.get_weights()
        with optimizer.ema_weights(), one.optimizer.ema_weights():
            assert small.difference(one, two) < 1e-6
        for old, new in zip(before, two.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("compiling", [{"steps_per_execution": 2}, {"jit_compile": True}], ids=str)
def test_compiled_training_equals_eager_training(compiling):
    eager = small.fit(all_parts())
    assert small.difference(eager, small.fit(all_parts(), run_eagerly=False, **compiling)) < 1e-6


def test_loss_scaling_skips_what_overflows_and_nothing_counts_it():
    (variable,) = variables({"a/kernel": np.ones(2)}, "float32")
    made = optimizers.extend(keras.optimizers.SGD, optimizers.GradientAccumulation, optimizers.Lookahead)
    inner = made(0.25, grad_accum_steps=2, steps_per_slow_update=1)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=16.0)
    step = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    optimizer.build([variable])
    for gradient in (16.0, np.inf, 24.0):  # scaled by 16, 16 and, after the overflow, 8
        step(tf.constant([gradient] * 2, "float32"))
    np.testing.assert_array_equal(variable, 1 - 0.5 * 0.25 * (1.0 + 3.0) / 2)
    assert int(inner.iterations) == 1 and float(optimizer.dynamic_scale) == 8


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_trains_close_to_float32(policy):
    expected = small.fit(all_parts())
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = small.model()
    finally:
        keras.config.set_dtype_policy(previous)
    found = small.fit(all_parts(), start=model)
    assert isinstance(found.optimizer, keras.optimizers.LossScaleOptimizer) is (policy == "mixed_float16")
    assert 0 < small.difference(found, expected) < 0.02


def test_the_graph_of_an_update_is_hardly_larger_than_keras_own():
    values = {f"layer_{index}/kernel": np.ones((2, 2)) for index in range(6)}

    def nodes(optimizer):
        made = variables(values, "float32")
        optimizer.build(made)
        step = tf.function(lambda: optimizer.apply([tf.ones((2, 2))] * 6, made), autograph=False)
        graph = step.get_concrete_function().graph.as_graph_def()
        return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)

    plain = nodes(keras.optimizers.AdamW())
    table = {f"layer_{index}/": 0.9**index for index in range(6)}
    for part, arguments in [
        (optimizers.ParameterWiseLearningRate, {"paramwise_lr_schedule": table}),
        (optimizers.PiecewiseLinearLearningRate, {}),
        (optimizers.WeightDecay, {}),
        (optimizers.ExponentialMovingAverage, {}),
        (optimizers.Lookahead, {}),
        (optimizers.GradientAccumulation, {}),
        (optimizers.LazyOptimization, {"include_in_lazy_optimization": ["layer_1/"]}),
    ]:
        assert nodes(optimizers.extend(keras.optimizers.AdamW, part)(**arguments)) < 1.4 * plain, part
    assert nodes(optimizers.extend(keras.optimizers.AdamW, optimizers.LayerAdaptation)()) < 1.8 * plain
