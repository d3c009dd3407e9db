"""Layers against float64 tables and brute force."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tests.conftest import FIXTURES
from tfloader import DataError
from tfloader import layers as tfl
from tfloader.layers.activations import activation


@pytest.mark.parametrize(("name", "table"), [("gelu", "gelu_erf"), ("gelu_tanh", "gelu_tanh"), ("relu", "relu")])
def test_activations_equal_their_float64_tables(name, table):
    x = np.load(FIXTURES / "num_gelu" / "inputs.npz")["x"].astype("float32")
    expected = np.load(FIXTURES / "num_gelu" / "outputs.npz")[table]
    np.testing.assert_allclose(activation(name)(x), expected, atol=2e-6)


@pytest.mark.parametrize("table", np.load(FIXTURES / "num_t5_relpos" / "outputs.npz").files)
def test_relative_position_buckets_equal_the_originals(table):
    direction, buckets, distance = table.rsplit("_", 2)
    inputs = np.load(FIXTURES / "num_t5_relpos" / "inputs.npz")
    layer = tfl.RelativePositionBias(
        1, int(buckets[1:]), int(distance[1:]), bidirectional=direction.startswith(("bi", "encoder"))
    )
    expected = np.load(FIXTURES / "num_t5_relpos" / "outputs.npz")[table]
    np.testing.assert_array_equal(layer.bucket(np.ravel(inputs[inputs.files[0]])), np.ravel(expected))


def test_texts_beyond_the_table_of_positions_are_refused_with_the_ways_out():
    plain, squared = tfl.PositionEmbedding(3), tfl.PositionEmbedding(3, hierarchical=0.4)
    assert plain(np.zeros((1, 3, 4))).shape == (1, 3, 4) and squared(np.zeros((1, 9, 4))).shape == (1, 9, 4)
    for layer, length in ((plain, 3), (squared, 9)):
        more = r" or divide the texts\." if layer is squared else ".* hierarchical_position=True, if its family can"
        ways = f"texts of {length + 1} tokens, .* {length} positions.* max_length={length}{more}"
        with pytest.raises(DataError, match=ways):
            layer(np.zeros((1, length + 1, 4)))
    assert plain(np.zeros((1, 4, 4)), position_ids=np.zeros((1, 4), int)).shape == (1, 4, 4)


def attention_by_hand(layer, x, memory, bias):
    """Loops and float64 in place of batched products."""

    def project(dense, values):
        kernel, offset = (np.asarray(item, "float64") for item in dense.get_weights())
        return values @ kernel + offset

    q, k, v = project(layer.query, x), project(layer.key, memory), project(layer.value, memory)
    size = layer.head_size
    out = np.zeros(q.shape)
    for b in range(len(x)):
        for h in range(layer.num_heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[b, :, part] @ k[b, :, part].T / np.sqrt(size) + bias[b, 0]
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[b, :, part] = weights / weights.sum(-1, keepdims=True) @ v[b, :, part]
    return project(layer.output_dense, out)


def test_attention_equals_a_loop_over_rows_and_heads():
    random = np.random.default_rng(0)
    x, memory = random.normal(size=(2, 5, 12)), random.normal(size=(2, 7, 9))
    bias = np.where(random.random((2, 1, 5, 7)) < 0.3, -1e9, 0.0)
    layer = tfl.MultiHeadAttention(3, 4, 12)
    found = layer(x.astype("float32"), memory=memory.astype("float32"), bias=bias.astype("float32"))
    np.testing.assert_allclose(found, attention_by_hand(layer, x, memory, bias), atol=2e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_row_that_may_look_nowhere_gives_no_nan(dtype):
    mask = tfl.AttentionMask("encoder", dtype=dtype)
    tokens = np.ones((1, 4), "int32")
    bias = mask(tokens, mask_input=np.zeros((1, 4), "int32"))
    layer = tfl.MultiHeadAttention(2, 4, 8, dtype=dtype)
    assert np.isfinite(np.asarray(layer(np.ones((1, 4, 8), "float32"), bias=bias), "float32")).all()


def allowed(kind, tokens, segments=None, pad=None, mask=None):
    bias = tfl.AttentionMask(kind, pad_token_id=pad)(tokens, segment_ids=segments, mask_input=mask)
    return np.asarray(bias)[:, 0] == 0


def test_masks_let_each_position_see_what_the_application_says():
    tokens = np.array([[5, 6, 0, 7, 0]])
    segments = np.array([[0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(allowed("lm", tokens)[0], np.tri(5, dtype=bool))
    np.testing.assert_array_equal(allowed("encoder", tokens, pad=0)[0], [[True, True, False, True, False]])
    unilm = allowed("unilm", tokens, segments, pad=0)[0]
    # The source sees the source; the target also its own past; padding (id 0) nobody sees.
    np.testing.assert_array_equal(unilm[0], [True, True, False, False, False])
    np.testing.assert_array_equal(unilm[3], [True, True, False, True, False])


def test_position_zero_is_never_padding():
    assert allowed("encoder", np.array([[0, 3, 0]]), pad=0)[0].tolist() == [[True, True, False]]
    embedding = tfl.TokenEmbedding(5, 2, pad_token_id=0)
    assert np.asarray(embedding.compute_mask(np.array([[0, 3, 0]]))).tolist() == [[True, True, False]]


@pytest.mark.parametrize("rms", [False, True])
def test_a_conditional_norm_starts_as_the_plain_one_and_then_depends_on_its_condition(rms):
    kind = tfl.ConditionalRMSNormalization if rms else tfl.ConditionalLayerNormalization
    plain = tfl.RMSNormalization(epsilon=1e-6) if rms else keras.layers.LayerNormalization(epsilon=1e-6)
    x = np.random.default_rng(1).normal(size=(2, 3, 8)).astype("float32")
    condition = np.random.default_rng(2).normal(size=(2, 5)).astype("float32")
    layer = kind(epsilon=1e-6)
    np.testing.assert_allclose(layer(x, condition), plain(x), atol=1e-6)
    dense = layer.scale_dense if rms else layer.gamma_dense
    dense.kernel.assign(np.ones(dense.kernel.shape))
    expected = np.asarray(plain(x)) * (1 + condition.sum(-1)[:, None, None])
    np.testing.assert_allclose(layer(x, condition), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_initializer_told_to_wait_hands_out_memory_that_a_variable_takes(dtype):
    initializer = tfl.TruncatedNormal(stddev=0.02)
    initializer.filled_later = True
    dense = keras.layers.Dense(300, kernel_initializer=initializer, dtype=dtype)
    dense.build((None, 500))
    assert tuple(dense.kernel.shape) == (500, 300) and keras.backend.standardize_dtype(dense.kernel.dtype) == dtype
    dense.kernel.assign(np.ones((500, 300)))
    assert np.asarray(keras.ops.cast(dense.kernel, "float32")).sum() == 150_000


def test_a_cloned_initializer_draws_values_although_the_original_was_told_to_wait():
    initializer = tfl.TruncatedNormal(stddev=0.02)
    initializer.filled_later = True
    clone = keras.initializers.deserialize(keras.initializers.serialize(initializer))
    values = np.asarray(clone((200, 200)))
    assert 0.01 < values.std() < 0.03 and np.abs(values).max() < 0.05
