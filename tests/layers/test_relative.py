"""Attention with relative positions, against loops over every pair of positions in NumPy."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tfloader.layers import PositionRows, RelativeAttention

HEADS, SIZE, WIDTH, LENGTH = 2, 6, 10, 9


def sinusoid(row):
    angles = row / 10000.0 ** (np.arange(0, SIZE, 2) / SIZE)
    return np.stack([np.sin(angles), np.cos(angles)], axis=1).ravel()


def by_loops(layer, x, bias, max_distance):
    def project(dense):
        y = x.astype("float64") @ np.asarray(dense.kernel) + np.asarray(dense.bias)
        return y.reshape(*x.shape[:2], HEADS, SIZE)

    query, key, value = project(layer.query), project(layer.key), project(layer.value)
    context = np.zeros_like(query)
    for b, i, h in np.ndindex(query.shape[:3]):
        near = [sinusoid(np.clip(j - i, -max_distance, max_distance) + max_distance) for j in range(x.shape[1])]
        scores = [query[b, i, h] @ (key[b, j, h] + near[j]) / SIZE**0.5 + bias[b, j] for j in range(x.shape[1])]
        shares = np.exp(np.array(scores) - max(scores))
        shares /= shares.sum()
        context[b, i, h] = sum(shares[j] * (value[b, j, h] + near[j]) for j in range(x.shape[1]))
    flat = context.reshape(*x.shape[:2], HEADS * SIZE)
    return flat @ np.asarray(layer.output_dense.kernel) + np.asarray(layer.output_dense.bias)


@pytest.mark.parametrize("max_distance", [1, 3, 64])
def test_keys_and_values_have_the_vectors_of_their_distances(max_distance):
    keras.utils.set_random_seed(0)
    layer = RelativeAttention(
        HEADS, SIZE, WIDTH, max_distance=max_distance, kernel_initializer=keras.initializers.RandomNormal(stddev=0.5)
    )
    x = np.random.default_rng(1).normal(size=(2, LENGTH, WIDTH)).astype("float32")
    bias = np.zeros((2, LENGTH), "float32")
    bias[1, 6:] = -1e9
    found = layer(x, bias=bias[:, None, None])
    np.testing.assert_allclose(found, by_loops(layer, x, bias, max_distance), atol=2e-5)
    again = RelativeAttention.from_config(layer.get_config())
    again.build(x.shape)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x, bias=bias[:, None, None]), found)


def test_position_rows_count_the_real_tokens_from_behind_the_padding_id():
    tokens = np.array([[5, 6, 1, 1], [1, 1, 7, 8], [7, 1, 8, 1]])
    layer = PositionRows(pad_token_id=1)
    np.testing.assert_array_equal(layer(tokens), [[2, 3, 1, 1], [1, 1, 2, 3], [2, 1, 3, 1]])
    np.testing.assert_array_equal(layer(tokens, position_ids=np.array([[0, 1, 2, 3]] * 3)), [[2, 3, 4, 5]] * 3)
