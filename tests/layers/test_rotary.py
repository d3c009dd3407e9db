"""Rotary attention against complex numbers in float64."""

from __future__ import annotations

import numpy as np
import pytest

from tfloader import layers as tfl
from tfloader.layers.rotary import sinusoids


def turned(x, positions):
    """x [batch, heads, length, size] as complex channels, positions [batch, length]."""
    size = x.shape[-1]
    angles = positions[:, None, :, None] * 10000.0 ** (-np.arange(0, size, 2) / size)
    return (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)


def attention_by_hand(layer, x, positions):
    def heads(dense):
        kernel, bias = (np.asarray(item, "float64") for item in dense.get_weights())
        return (x @ kernel + bias).reshape(*x.shape[:2], layer.num_heads, layer.head_size).transpose(0, 2, 1, 3)

    query, key = turned(heads(layer.query), positions), turned(heads(layer.key), positions)
    scores = np.real(query @ key.conj().transpose(0, 1, 3, 2)) / np.sqrt(layer.head_size)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    context = weights / weights.sum(-1, keepdims=True) @ heads(layer.value)
    kernel, bias = layer.output_dense.get_weights()
    return context.transpose(0, 2, 1, 3).reshape(*x.shape[:2], -1) @ kernel + bias


@pytest.mark.parametrize("given", [False, True])
def test_queries_and_keys_are_turned_by_their_positions_and_values_are_not(given):
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 5, 12)).astype("float32")
    ids = np.array([[0, 1, 2, 3, 4], [7, 3, 3, 0, 90]]) if given else None
    layer, places = tfl.RotaryAttention(3, 4, 12), tfl.SinusoidalPosition(4)
    found = layer(x, positions=places(x, position_ids=ids))
    expected = attention_by_hand(layer, x.astype("float64"), np.arange(5)[None] if ids is None else ids)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_sinusoids_stay_exact_far_from_the_start():
    positions = np.arange(4000)
    angles = positions[:, None] * 10000.0 ** (-np.arange(0, 64, 2) / 64)
    expected = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(4000, 64)
    np.testing.assert_allclose(sinusoids(positions.astype("float32"), 64), expected, atol=3e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_positions_are_made_in_float32_whatever_the_compute_dtype(dtype):
    found = np.asarray(tfl.SinusoidalPosition(4, dtype=dtype)(np.zeros((1, 3000, 8), dtype))).astype("float64")
    assert found.shape == (1, 3000, 4)
    np.testing.assert_allclose(found[0, 2999, :2], [np.sin(2999), np.cos(2999)], atol=5e-3)


def test_weightless_norm_equals_its_formula():
    x = np.random.default_rng(0).normal(size=(2, 3, 8))
    found = tfl.PlainRMSNormalization(epsilon=0.1, dtype="float64")(x)
    np.testing.assert_allclose(found, x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1), rtol=1e-12)
