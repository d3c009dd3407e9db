"""What tfloader leaves to Keras because it is right there, and what it does itself because it is not (yet).

When a test of the second kind fails, Keras has changed: see whether the part is still needed.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.optimizers import reference, small
from tests.optimizers.reference import Reference, largest_error, train, variables


def numpy_run(optimizer, rule, batches=None, **options):
    batches = reference.gradients() if batches is None else batches
    found, _ = train(optimizer, reference.starts(), batches)
    return largest_error(found, Reference(rule, **options).run(reference.starts(), batches)[0])


@pytest.mark.parametrize(
    ("optimizer", "rule", "options"),
    [
        (lambda: keras.optimizers.SGD(reference.RATE), reference.Sgd(0.0), {}),
        (lambda: keras.optimizers.SGD(reference.RATE, momentum=0.5), reference.Sgd(0.5), {}),
        (lambda: keras.optimizers.Adam(reference.RATE), reference.Adam(), {}),
        (lambda: keras.optimizers.AdamW(reference.RATE, weight_decay=0.125), reference.Adam(), {"decay": 0.125}),
        (lambda: keras.optimizers.Adam(reference.RATE, clipnorm=0.5), reference.Adam(), {"clipnorm": 0.5}),
        (
            lambda: keras.optimizers.Adam(reference.RATE, global_clipnorm=0.5),
            reference.Adam(),
            {"global_clipnorm": 0.5},
        ),
        (
            lambda: keras.optimizers.Adam(reference.RATE, gradient_accumulation_steps=2, clipnorm=0.5),
            reference.Adam(),
            {"accumulate": 2, "clipnorm": 0.5},
        ),
    ],
)
def test_right_formulas(optimizer, rule, options):
    assert numpy_run(optimizer(), rule, **options) < 1e-5


def test_right_lion():
    """Chen et al., 2023, algorithm 2."""
    found, _ = train(keras.optimizers.Lion(reference.RATE, 0.75, 0.5), reference.starts(), reference.gradients())
    weights, momentum = reference.starts(), dict.fromkeys(reference.SHAPES, 0.0)
    for batch, after in zip(reference.gradients(), found, strict=True):
        for path, gradient in batch.items():
            weights[path] = weights[path] - reference.RATE * np.sign(0.75 * momentum[path] + 0.25 * gradient)
            momentum[path] = 0.5 * momentum[path] + 0.5 * gradient
            np.testing.assert_allclose(after[path], weights[path], atol=1e-12)


def test_right_warmup_and_decay_of_schedules():
    cosine = keras.optimizers.schedules.CosineDecay(0.0, 100, warmup_target=1.0, warmup_steps=10)
    linear = keras.optimizers.schedules.PolynomialDecay(1.0, 100, end_learning_rate=0.1)
    for step in (0, 5, 10, 60, 110, 500):
        after = min(max(step - 10, 0), 100) / 100
        expected = step / 10 if step < 10 else 0.5 * (1 + np.cos(np.pi * after))
        np.testing.assert_allclose(cosine(step), expected, atol=1e-6)
        np.testing.assert_allclose(linear(step), 1 - 0.9 * min(step, 100) / 100, atol=1e-6)


def test_right_average_without_accumulation():
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.75)
    (variable,) = variables({"a/kernel": np.zeros(1)}, "float32")
    for _ in range(3):
        optimizer.apply([keras.ops.ones(1)], [variable])
    expected = 0.75 * (0.75 * -1 + 0.25 * -2) + 0.25 * -3  # from the first weights on, not from zero
    np.testing.assert_allclose(optimizer._model_variables_moving_average[0], expected, rtol=1e-6)


def test_still_schedules_and_averages_count_batches_under_accumulation():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.0])
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=4, use_ema=True, ema_momentum=0.5)
    (variable,) = variables({"a/kernel": np.zeros(1)}, "float32")
    for _ in range(3):
        optimizer.apply([keras.ops.ones(1)], [variable])
    assert int(optimizer.iterations) == 0 and float(optimizer.learning_rate) == 0.0
    optimizer = keras.optimizers.SGD(1.0, gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.5)
    (variable,) = variables({"a/kernel": np.zeros(1)}, "float32")
    averages = []
    for _ in range(5):
        optimizer.apply([keras.ops.ones(1)], [variable])
        averages.append(float(optimizer._model_variables_moving_average[0][0]))
    assert averages[3:] == [-1.5, -1.75]  # the fifth batch updates nothing


def test_still_swapping_averages_rounds_weights_and_predict_keeps_the_average():
    model = small.fit(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5))
    for variable in model.weights:
        variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    before, swap = model.get_weights(), keras.callbacks.SwapEMAWeights()
    model.evaluate(*small.data(), verbose=0, callbacks=[swap])
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    model.predict(small.data()[0], verbose=0, callbacks=[swap])
    assert max(np.abs(a - b).max() for a, b in zip(before, model.get_weights(), strict=True)) > 0.1


def test_still_exclusions_from_decay_are_not_saved():
    optimizer = keras.optimizers.AdamW(1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    read = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    values = []
    for one in (optimizer, read):
        (variable,) = variables({"a/bias": np.ones(1)}, "float32")
        one.apply([keras.ops.zeros(1)], [variable])
        values.append(float(variable[0]))
    assert values == [1.0, 0.5]


def test_still_accumulation_fails_and_clipping_differs_under_replicas(two_replicas):
    def two(**arguments):
        with two_replicas.scope():
            model, optimizer = small.model(), keras.optimizers.SGD(0.1, **arguments)
        return small.fit(optimizer, start=model, run_eagerly=False)

    with pytest.raises(RuntimeError, match="merge_call"):
        two(gradient_accumulation_steps=2)
    assert small.difference(two(global_clipnorm=0.1), small.fit(keras.optimizers.SGD(0.1, global_clipnorm=0.1))) > 1e-4


def test_the_hooks_that_tfloader_overrides_are_still_there():
    """The first two are private to Keras; OwnDecay and WholeGradients rest on them."""
    for hook in ("_apply_weight_decay", "_clip_gradients", "update_step", "assign", "assign_add", "assign_sub"):
        assert callable(getattr(keras.optimizers.Optimizer, hook))
    called = []

    class Probe(keras.optimizers.SGD):
        def _apply_weight_decay(self, variables):
            called.append("decay")

        def _clip_gradients(self, grads):
            called.append("clip")
            return super()._clip_gradients(grads)

    Probe(0.1, weight_decay=0.1).apply([keras.ops.ones(1)], variables({"a/kernel": np.ones(1)}))
    assert called == ["clip", "decay"]
