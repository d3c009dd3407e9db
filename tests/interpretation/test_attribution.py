"""Saliency against finite differences, closed forms, and the completeness of integrated gradients."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.errors import TrainingError

TOKENS = np.array([[2, 5, 6, 9, 3], [2, 7, 3, 0, 0]])
SEGMENTS = np.zeros_like(TOKENS)
INPUTS = [TOKENS, SEGMENTS]


def classifier(**options):
    keras.utils.set_random_seed(1)
    bert = tfloader.load(CHECKPOINTS / "bert_google", **{"num_hidden_layers": 1, **options})
    return keras.Model(bert.inputs, keras.layers.Dense(3, kernel_initializer="normal")(bert.output[:, 0]))


def without_embeddings(model, inputs):
    """The result where every token's embedding is zero."""
    table = model.get_layer("Embedding-Token").embeddings
    kept = np.array(table)
    table.assign(np.zeros_like(kept))
    result = np.asarray(model(inputs))
    table.assign(kept)
    return result


def scaled(model, layer, tokens, factors, run):
    """Results with the table's rows of some tokens scaled; each is one token of one sentence in these tests."""
    table = model.get_layer(layer).embeddings
    kept = np.array(table)
    results = []
    for token in tokens:
        for factor in factors:
            changed = kept.copy()
            changed[token] *= factor
            table.assign(changed)
            results.append(run())
    table.assign(kept)
    return np.reshape(results, (len(tokens), len(factors)))


def test_gradient_x_input_equals_finite_differences_to_many_digits():
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(9, 3, name="words", dtype="float64")(inputs)
    x = keras.layers.Dense(5, "tanh", dtype="float64")(keras.layers.Flatten(dtype="float64")(x))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", dtype="float64")(x))
    tokens = np.array([[1, 5, 2, 8]])
    results = scaled(model, "words", tokens[0], (1 + 1e-5, 1 - 1e-5), lambda: model(tokens)[0, 1])
    found = tfloader.saliency(model, tokens, 1, layer="words")
    np.testing.assert_allclose(found[0], (results[:, 0] - results[:, 1]) / 2e-5, rtol=1e-5)


def test_gradient_x_input_of_bert_equals_finite_differences():
    model, inputs = classifier(), [TOKENS[:1], SEGMENTS[:1]]
    results = scaled(model, "Embedding-Token", TOKENS[0], (1.01, 0.99), lambda: model(inputs)[0, 1])
    found = tfloader.saliency(model, inputs, target=1)
    np.testing.assert_allclose(found[0], (results[:, 0] - results[:, 1]) / 2e-2, atol=2e-4)
    assert np.abs(found).max() > 2e-2


@pytest.mark.parametrize("target", [0, [2, 1], None, lambda outputs: outputs[:, 2] - outputs[:, 0]])
def test_integrated_gradients_sum_to_the_change_of_the_result(target):
    model = classifier()
    found = tfloader.saliency(model, INPUTS, target, method="integrated_gradients", steps=16)
    outputs, nothing = np.asarray(model(INPUTS)), without_embeddings(model, INPUTS)
    if callable(target):
        expected = target(outputs) - target(nothing)
    else:
        rows = np.argmax(outputs, -1) if target is None else np.broadcast_to(target, 2)
        expected = (outputs - nothing)[[0, 1], rows]
    np.testing.assert_allclose(found.sum(-1), expected, atol=2e-4)


def test_another_baseline_is_another_start_of_the_way():
    model = classifier()
    padding = np.array(model.get_layer("Embedding-Token").embeddings)[0]
    found = tfloader.saliency(model, INPUTS, 1, method="integrated_gradients", steps=16, baseline=padding)
    table = model.get_layer("Embedding-Token").embeddings
    kept = np.array(table)
    before = np.asarray(model(INPUTS))[:, 1]
    table.assign(np.broadcast_to(padding, kept.shape))
    after = np.asarray(model(INPUTS))[:, 1]
    np.testing.assert_allclose(found.sum(-1), before - after, atol=2e-4)


def test_padding_says_nothing_and_the_model_is_left_as_it_was():
    model = classifier()
    before = np.asarray(model(INPUTS))
    for method in ("gradient_x_input", "integrated_gradients"):
        found = tfloader.saliency(model, INPUTS, 0, method=method, steps=3)
        assert found.shape == TOKENS.shape and found.dtype == "float32"
        assert not found[1, 3:].any() and found[0].all()
    np.testing.assert_array_equal(model(INPUTS), before)
    assert "call" not in vars(model.get_layer("Embedding-Token"))


def test_both_methods_agree_with_the_closed_form_of_a_linear_model():
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(9, 3, name="words")(inputs)
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    tokens = np.array([[1, 2, 2, 8]])
    kernel = np.array(model.layers[-1].kernel).reshape(4, 3)
    expected = (np.array(model.get_layer("words").embeddings)[tokens[0]] * kernel).sum(-1)
    for method in ("gradient_x_input", "integrated_gradients"):
        found = tfloader.saliency(model, tokens, layer="words", method=method, steps=2)
        np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [keras.layers.Embedding, keras.layers.ReversibleEmbedding])
def test_masks_of_the_embedding_still_reach_later_layers(kind):
    inputs = keras.Input((4,), dtype="int32")
    pooled = keras.layers.GlobalAveragePooling1D()(kind(9, 3, mask_zero=True, name="words")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, use_bias=False)(pooled))
    tokens = np.array([[1, 2, 0, 0]])
    found = tfloader.saliency(model, tokens, 1, layer="words")
    np.testing.assert_allclose(found.sum(), np.asarray(model(tokens))[0, 1], rtol=1e-5)
    assert not found[0, 2:].any()


def test_a_language_model_with_a_tied_table_is_explained_by_its_input_alone():
    model = tfloader.load(CHECKPOINTS / "hf_gpt2", num_hidden_layers=1)
    tokens = np.array([[5, 6, 7]])

    def target(logits):
        return logits[:, 1, 42]

    found = tfloader.saliency(model, tokens, target, method="integrated_gradients")
    assert found[0, 2] == 0  # the future
    # The input's table is zero, the output's is not.
    hidden = keras.Model(model.input, model.get_layer("Output-Norm").output)
    nothing = without_embeddings(hidden, tokens)[0, 1] @ np.array(model.get_layer("Embedding-Token").embeddings)[42]
    np.testing.assert_allclose(found.sum(), np.asarray(model(tokens))[0, 1, 42] - nothing, atol=2e-4)


def test_an_encoder_and_a_decoder_that_share_a_table_are_told_apart():
    model = tfloader.load(CHECKPOINTS / "hf_t5_v11", num_hidden_layers=1)
    inputs = [np.array([[5, 6, 7, 1]]), np.array([[0, 8]])]

    def target(logits):
        return logits[:, 1, 3]

    assert tfloader.saliency(model, inputs, target).shape == (1, 4)
    assert tfloader.saliency(model, inputs, target, occurrence=1).shape == (1, 2)
    with pytest.raises(TrainingError, match="2 times, so there is no occurrence=2"):
        tfloader.saliency(model, inputs, target, occurrence=2)


def test_a_layer_in_a_model_in_a_model_is_found():
    bert = tfloader.load(CHECKPOINTS / "bert_google", num_hidden_layers=1)
    inputs = [keras.Input((None,), dtype="int32") for _ in range(2)]
    model = keras.Model(inputs, keras.layers.Dense(2)(bert(inputs)[:, 0]))
    assert np.abs(tfloader.saliency(model, INPUTS)[0]).min() > 0


def test_what_cannot_be_explained_says_why():
    model = classifier()
    with pytest.raises(TrainingError, match=r"no layer named 'Embedding-Tokens'; did you mean 'Embedding-Token'"):
        tfloader.saliency(model, INPUTS, layer="Embedding-Tokens")
    with pytest.raises(TrainingError, match="from 0 to 2, found"):
        tfloader.saliency(model, INPUTS, 3)
    with pytest.raises(TrainingError, match="method must be"):
        tfloader.saliency(model, INPUTS, 0, method="gradient")
    with pytest.raises(TrainingError, match=r"one number a row, \[batch\]; it gave \(2, 3\)"):
        tfloader.saliency(model, INPUTS, lambda outputs: outputs)
    with pytest.raises(TrainingError, match="has no gradient"):
        tfloader.saliency(model, INPUTS, lambda outputs: np.zeros(2))
    encoder = tfloader.load(CHECKPOINTS / "bert_google")
    with pytest.raises(TrainingError, match=r"not \[batch, classes\]. Pass as target a function"):
        tfloader.saliency(encoder, INPUTS)
    assert "call" not in vars(model.get_layer("Embedding-Token"))
