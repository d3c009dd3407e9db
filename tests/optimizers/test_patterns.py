"""Patterns: what they match, and what they say where they match nothing."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.optimizers.reference import variables
from tfloader.errors import TrainingError
from tfloader.optimizers.patterns import NORMS_AND_BIASES, as_patterns, matches, path, search

LAYERS = variables(
    {f"Transformer-{index}-FeedForward/kernel": np.zeros(1) for index in (0, 1, 10, 11)} | {"Norm/gamma": np.zeros(1)}
)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("Transformer-1", "Transformer-1-FeedForward/kernel", True),
        ("Transformer-1", "Transformer-10-FeedForward/kernel", False),
        ("0-FeedForward", "Transformer-10-FeedForward/kernel", False),
        (r"Transformer-\d", "Transformer-10-FeedForward/kernel", False),
        (r"Transformer-\d+", "Transformer-10-FeedForward/kernel", True),
        ("1", "dense_1/kernel_11", True),
        ("bias$", "dense/bias", True),
        ("bias$", "dense/bias_1", False),
        ("Norm|bias", "Embedding-Norm/gamma", True),
    ],
)
def test_a_pattern_is_searched_and_never_cuts_a_number(pattern, text, found):
    assert search(pattern, text) is found


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_layers_number_matches_that_layer_alone(one, two):
    assert search(f"Transformer-{one}", f"Transformer-{two}-Norm/beta") is (one == two)


def test_norms_and_biases_of_keras_and_tfloader_layers():
    names = ("gamma", "beta", "scale", "bias")
    assert all(search(NORMS_AND_BIASES[0], f"layer/{name}") and search(NORMS_AND_BIASES[0], name) for name in names)
    assert not any(search(NORMS_AND_BIASES[0], f"layer/{name}_dense/kernel") for name in names)


def test_all_that_is_wrong_is_said_at_once_with_near_names():
    with pytest.raises(TrainingError) as caught:
        matches(["Transfomer-1-FeedForward", "*-Norm", "Norm", "nonsense!"], LAYERS, "paramwise_lr_schedule")
    message = str(caught.value)
    assert "paramwise_lr_schedule" in message and "frozen" in message
    assert "'Transfomer-1-FeedForward' matches no variable; did you mean 'Transformer-1-FeedForward'" in message
    assert "'*-Norm' is not a regular expression" in message and "'.*-Norm'" in message
    assert "'nonsense!' matches no variable" in message and "'Norm'" not in message


def test_a_lone_string_is_one_pattern():
    assert as_patterns("bias") == ("bias",) and as_patterns(None) == () and as_patterns(["a", "b"]) == ("a", "b")


def test_variables_of_tensorflow_are_known_by_their_names():
    import tensorflow as tf

    assert path(tf.Variable(0.0, name="dense/kernel")) == "dense/kernel"
    assert path(keras.Variable(0.0, name="kernel")) == "kernel"
