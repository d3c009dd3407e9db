"""The MEMM against bert4keras' numbers and enumeration of all paths."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given

from tests.conftest import FIXTURES
from tests.layers.chains import best_of, chains, numeric_gradient
from tfloader import ConfigError
from tfloader.layers import MaximumEntropyMarkovModel

FOLDER = FIXTURES / "num_losses"
CASES = np.load(FOLDER / "cases.npz")
OPTIONS = {name: case for name, case in json.loads((FOLDER / "cases.json").read_text()).items() if "memm" in name}


def log_softmax(x):
    return x - np.log(np.exp(x - x.max()).sum()) - x.max()


def log_likelihood(path, emissions, transitions):
    """The mean over both directions, step by step."""
    forwards, backwards = log_softmax(emissions[0])[path[0]], log_softmax(emissions[-1])[path[-1]]
    for t in range(1, len(path)):
        forwards += log_softmax((emissions[t] + transitions[path[t - 1]]) / 2)[path[t]]
        backwards += log_softmax((emissions[t - 1] + transitions[:, path[t]]) / 2)[path[t - 1]]
    return (forwards + backwards) / 2


def losses_of(emissions, transitions, tags, real):
    rows = [
        log_likelihood(t[keep], e[keep], transitions) if keep.any() else 0
        for e, t, keep in zip(emissions, tags, real, strict=True)
    ]
    return -np.array(rows) / max(real.sum(axis=1).mean(), 1e-7)


def memm_with(transitions, lr_multiplier=1):
    memm = MaximumEntropyMarkovModel(lr_multiplier, dtype="float64")
    memm.build((None, None, len(transitions)))
    memm.set_weights([transitions / lr_multiplier])
    return memm


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-12), ("float32", 2e-6)])
def test_losses_accuracies_and_paths_equal_bert4keras(name, dtype, atol):
    case = {key.removeprefix(f"{name}/"): CASES[key] for key in CASES.files if key.startswith(f"{name}/")}
    options = {key: value for key, value in OPTIONS[name].items() if key != "layer"}
    memm = MaximumEntropyMarkovModel(**options, dtype=dtype)
    scores = memm(case["x_pred"].astype(dtype), mask=case["mask"])
    memm.set_weights([case[key] for key in ("w/trans", "w/l_trans", "w/r_trans") if key in case])
    np.testing.assert_allclose(memm.transitions, case["trans"], atol=max(atol, 1e-7))
    assert np.mean(memm.sequence_losses(case["x_true"], scores)) == pytest.approx(case["loss"], abs=atol)
    assert float(memm.sparse_accuracy(case["x_true"], scores)) == pytest.approx(case["accuracy"], abs=1e-6)
    np.testing.assert_array_equal(memm.decode(scores), case["path_both"])


@given(chains())
def test_any_mask_gives_the_loss_and_the_best_path_of_the_real_positions(chain):
    emissions, transitions, real = chain
    tags = np.random.default_rng(0).integers(0, len(transitions), real.shape)
    memm = memm_with(transitions, lr_multiplier=5)
    scores = memm(emissions, mask=real)
    expected = losses_of(emissions, transitions, tags, real)
    np.testing.assert_allclose(memm.sequence_losses(tags, scores), expected, atol=1e-12)
    paths = np.asarray(memm.decode(scores))
    assert ((paths >= 0) == real).all()
    for row, keep in enumerate(real):
        if keep.any():
            found = log_likelihood(paths[row, keep], emissions[row, keep], transitions)
            every = np.ndindex(*[len(transitions)] * keep.sum())
            best = max(log_likelihood(path, emissions[row, keep], transitions) for path in every)
            assert found == pytest.approx(best, abs=1e-12)


def test_as_a_chain_its_paths_have_their_likelihoods_as_scores():
    random = np.random.default_rng(1)
    emissions, transitions = random.normal(size=(1, 4, 3)), random.normal(size=(3, 3))
    nodes, links = (np.asarray(part) for part in memm_with(transitions).as_chain(emissions, np.array([4], "int32")))
    best = best_of(nodes[0], links)
    score = sum(nodes[0, np.arange(4), best]) + sum(links[a, b] for a, b in itertools.pairwise(best))
    assert score == pytest.approx(log_likelihood(best, emissions[0], transitions), abs=1e-12)


@pytest.mark.parametrize("hidden_dim", [None, 2])
def test_gradients_equal_finite_differences(hidden_dim):
    random = np.random.default_rng(2)
    emissions, tags = random.normal(size=(2, 4, 3)), random.integers(0, 3, (2, 4))
    real = np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool)
    memm = MaximumEntropyMarkovModel(hidden_dim=hidden_dim, dtype="float64")
    x = tf.constant(emissions)
    memm.build(x.shape)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(memm.sequence_losses(tags, memm(x, mask=real)))
    found = tape.gradient(loss, [x, *(weight.value for weight in memm.stored)])
    transitions = np.asarray(memm.transitions)
    expected = numeric_gradient(lambda e: losses_of(e, transitions, tags, real).sum(), emissions)
    np.testing.assert_allclose(found[0], expected, atol=1e-8)
    weights = [np.asarray(weight) for weight in memm.stored]
    for index, weight in enumerate(weights):

        def loss_at(value, index=index):
            parts = [*weights[:index], value, *weights[index + 1 :]]
            matrix = parts[0] if hidden_dim is None else parts[0] @ parts[1].T
            return losses_of(emissions, matrix, tags, real).sum()

        gradient = tf.convert_to_tensor(found[1 + index])
        np.testing.assert_allclose(gradient, numeric_gradient(loss_at, weight), atol=1e-8)


def test_with_a_multiplier_each_factor_gets_the_gradient_that_it_would_get_without():
    gradients = []
    for multiplier in (1, 50):
        memm = MaximumEntropyMarkovModel(multiplier, hidden_dim=2, dtype="float64")
        memm.build((None, None, 3))
        memm.set_weights([np.arange(6.0).reshape(3, 2) / 10 / multiplier, np.ones((3, 2)) / multiplier])
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(memm.sequence_losses([[0, 2, 1]], memm(np.eye(3)[None])))
        gradients.append(tape.gradient(loss, [weight.value for weight in memm.stored]))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_allclose(tf.convert_to_tensor(other), tf.convert_to_tensor(one), rtol=1e-12)


def test_a_rank_that_is_no_positive_number_is_refused():
    with pytest.raises(ConfigError, match="hidden_dim"):
        MaximumEntropyMarkovModel(hidden_dim=0)
