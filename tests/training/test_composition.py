"""Every pair of training hooks trains three steps as a plain computation of the same steps does.

The reference knows nothing of Keras: a function of a dictionary of arrays, differentiated by GradientTape, and NumPy
around it.
"""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfloader
from tfloader.optimizers import (
    ExponentialMovingAverage,
    GradientAccumulation,
    Lookahead,
    ParameterWiseLearningRate,
    extend,
)

VOCABULARY, CLASSES, ROWS, LENGTH, UPDATES = 11, 3, 4, 5, 3
RATE, MOMENTUM = 0.2, 0.9
EPSILON, PENALTY, MULTIPLIER, ACCUMULATED, AVERAGE, SLOW_EVERY, SLOW_STEP, RANK, ALPHA = (
    0.5,
    3.0,
    5,
    2,
    0.8,
    2,
    0.5,
    2,
    3,
)

# Hook -> the part of the optimizer that it is, and its arguments; None: the hook is something else.
HOOKS = {
    "fgm": None,
    "gradient penalty": None,
    "multipliers": (ParameterWiseLearningRate, {"paramwise_lr_schedule": {"^head/": MULTIPLIER}}),
    "accumulation": (GradientAccumulation, {"grad_accum_steps": ACCUMULATED}),
    "average": (ExponentialMovingAverage, {"ema_momentum": AVERAGE}),
    "lookahead": (Lookahead, {"steps_per_slow_update": SLOW_EVERY, "slow_step_size": SLOW_STEP}),
    "mixed bfloat16": None,
    "mixed float16": None,
    "mirrored": None,
    "lora": None,
    "frozen": None,
    "several steps at once": None,
}
# A model has one policy; and see test_keras_itself_cannot_run_several_steps_at_once_on_replicas.
APART = [("mixed bfloat16", "mixed float16"), ("mirrored", "several steps at once")]
SETS = [
    *((hook,) for hook in HOOKS),
    *(pair for pair in itertools.combinations(HOOKS, 2) if pair not in APART),
    tuple(hook for hook in HOOKS if hook not in ("mixed bfloat16", "mixed float16", "several steps at once")),
]


def make_model(hooks: tuple[str, ...]) -> keras.Model:
    """Embedding, mean, a hidden layer, logits; compiled, with its hooks."""
    keras.utils.set_random_seed(5)
    policy = next((hook.replace(" ", "_") for hook in hooks if hook.startswith("mixed")), "float32")
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = keras.layers.Embedding(VOCABULARY, 6, name="Embedding-Token", dtype=policy)(tokens)
    x = keras.ops.mean(x, axis=1)
    x = keras.layers.Dense(8, activation="tanh", name="body", dtype=policy)(x)
    model = keras.Model(tokens, keras.layers.Dense(CLASSES, name="head", dtype=policy)(x))
    parts = [HOOKS[hook] for hook in hooks if HOOKS[hook]]
    arguments = {name: value for _, item in parts for name, value in item.items()}
    optimizer = extend(keras.optimizers.SGD, *(part for part, _ in parts))(RATE, momentum=MOMENTUM, **arguments)
    if "mixed float16" in hooks:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    if "lora" in hooks:
        tfloader.enable_lora(model, "body", rank=RANK, alpha=ALPHA, train="head")
    if "frozen" in hooks:
        tfloader.freeze(model, "body/lora_kernel_a" if "lora" in hooks else "body")
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        steps_per_execution=UPDATES if "several steps at once" in hooks else 1,
    )
    methods = [tfloader.FGM(EPSILON)] if "fgm" in hooks else []
    methods += [tfloader.GradientPenalty(PENALTY)] if "gradient penalty" in hooks else []
    if methods:
        tfloader.adversarial_training(model, "Embedding-Token", *methods)
    return model


def make_batches(hooks: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    rows = ROWS * UPDATES * (ACCUMULATED if "accumulation" in hooks else 1)
    return random.integers(0, VOCABULARY, (rows, LENGTH)), random.integers(0, CLASSES, rows)


def arrays_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable, "float64") for variable in model.weights}


# ---- the reference


def loss_of(weights: dict[str, tf.Tensor], tokens: np.ndarray, labels: np.ndarray) -> tf.Tensor:
    kernel = weights["body/kernel"]
    if "body/lora_kernel_a" in weights:
        kernel += ALPHA / RANK * weights["body/lora_kernel_a"] @ weights["body/lora_kernel_b"]
    x = tf.reduce_mean(tf.gather(weights["Embedding-Token/embeddings"], tokens), axis=1)
    x = tf.tanh(x @ kernel + weights["body/bias"]) @ weights["head/kernel"] + weights["head/bias"]
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x))


def gradients_of(weights: dict, trained: list[str], tokens, labels, hooks) -> dict[str, np.ndarray]:
    table = "Embedding-Token/embeddings"
    weights = {name: tf.convert_to_tensor(value) for name, value in weights.items()}

    def differentiate(weights, penalised=False):
        with tf.GradientTape() as outer:
            outer.watch(list(weights.values()))
            with tf.GradientTape() as inner:
                inner.watch(weights[table])
                loss = loss_of(weights, tokens, labels)
            slope = tf.convert_to_tensor(inner.gradient(loss, weights[table]))
            if penalised:
                loss += PENALTY / 2 * tf.reduce_sum(slope**2)
        found = outer.gradient(loss, weights, unconnected_gradients="zero")
        return {name: tf.convert_to_tensor(value).numpy() for name, value in found.items()}, slope

    # FGM trains on the gradient at the moved table alone; the penalty belongs to the pass at the weights.
    plain, slope = differentiate(weights)
    total = dict.fromkeys(trained, 0.0)
    if "gradient penalty" in hooks:
        penalised, _ = differentiate(weights, penalised=True)
        total = {name: penalised[name] - plain[name] for name in trained}
    if "fgm" in hooks:
        moved = weights[table] + EPSILON * slope / (tf.norm(slope) + 1e-8)
        plain, _ = differentiate({**weights, table: moved})
    return {name: total[name] + plain[name] for name in trained}


def train(weights: dict, trained: list[str], tokens, labels, hooks) -> tuple[dict, dict]:
    """The weights after all steps, and their average."""
    weights, start = dict(weights), dict(weights)
    velocity = {name: np.zeros_like(weights[name]) for name in trained}
    averages = {name: np.zeros_like(weights[name]) for name in trained}
    accumulated = ACCUMULATED if "accumulation" in hooks else 1
    batches = [slice(first, first + ROWS) for first in range(0, len(tokens), ROWS)]
    groups = [batches[first : first + accumulated] for first in range(0, len(batches), accumulated)]
    for update, group in enumerate(groups, 1):
        found = [gradients_of(weights, trained, tokens[rows], labels[rows], hooks) for rows in group]
        for name in trained:
            rate = RATE * (MULTIPLIER if "multipliers" in hooks and name.startswith("head/") else 1)
            velocity[name] = MOMENTUM * velocity[name] - rate * np.mean([item[name] for item in found], axis=0)
            weights[name] = weights[name] + velocity[name]
            if "lookahead" in hooks and update % SLOW_EVERY == 0:
                start[name] = start[name] + SLOW_STEP * (weights[name] - start[name])
                weights[name] = start[name]
            averages[name] = AVERAGE * averages[name] + (1 - AVERAGE) * weights[name]
    return weights, {name: average / (1 - AVERAGE**update) for name, average in averages.items()}


# ---- the comparison


@pytest.mark.slow
@pytest.mark.parametrize("hooks", SETS, ids=" and ".join)
def test_hooks_together_train_as_the_reference_does(hooks, two_replicas):
    with two_replicas.scope() if "mirrored" in hooks else nullcontext():
        model = make_model(hooks)
    before = arrays_of(model)
    trained = [variable.path for variable in model.trainable_variables]
    if "lora" in hooks:  # b starts at zero, where a has no gradient
        b = next(variable for variable in model.weights if variable.path == "body/lora_kernel_b")
        b.assign(np.random.default_rng(8).normal(0, 0.3, b.shape))
        before = arrays_of(model)
    tokens, labels = make_batches(hooks)
    model.fit(tokens, labels, batch_size=ROWS, shuffle=False, verbose=0)

    expected, average = train(before, trained, tokens, labels, hooks)
    low = any(hook.startswith("mixed") for hook in hooks)
    tolerance = {"rtol": 0.05, "atol": 0.03} if low else {"rtol": 1e-4, "atol": 2e-5}
    after = arrays_of(model)
    for name in expected:
        np.testing.assert_allclose(after[name], expected[name], **tolerance, err_msg=name)
        if name not in trained:
            np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    moves = [np.abs(after[name] - before[name]).max() for name in trained]
    assert min(moves) > 1e-3, "a weight that hardly moves would prove nothing"
    if "average" in hooks:
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        with optimizer.ema_weights():
            inside = arrays_of(model)
        for name in trained:
            np.testing.assert_allclose(inside[name], average[name], **tolerance, err_msg=name)
        for name, value in arrays_of(model).items():
            np.testing.assert_array_equal(value, after[name], err_msg=name)


def test_the_reference_tells_every_hook_from_none():
    hooks_of_the_reference = ["fgm", "gradient penalty", "multipliers", "lookahead"]
    model = make_model(())
    tokens, labels = make_batches(())
    trained = [variable.path for variable in model.trainable_variables]
    plain, _ = train(arrays_of(model), trained, tokens, labels, ())
    for hook in hooks_of_the_reference:
        other, _ = train(arrays_of(model), trained, tokens, labels, (hook,))
        assert max(np.abs(other[name] - plain[name]).max() for name in trained) > 1e-2, hook


def test_keras_itself_cannot_run_several_steps_at_once_on_replicas(two_replicas):
    """When this fails, Keras can, and the pair leaves APART."""
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(), "mse", steps_per_execution=2)
    with pytest.raises(tf.errors.InvalidArgumentError, match="placeholder"):
        model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=4, verbose=0)
