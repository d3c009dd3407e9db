"""GAU-alpha against NumPy: the fixture's outputs are this implementation's, since the original needs TensorFlow 1."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tfloader
from tests.conftest import CHECKPOINTS
from tests.releases import relative_error
from tfloader.errors import ConfigError

FOLDER = CHECKPOINTS / "gau_alpha"


def reference(tensors, config, tokens, segments):
    """(last hidden states, logits of the masked language model) in float64, from the published names."""
    tensors = {name: array.astype("float64") for name, array in tensors.items()}
    units, size = config["intermediate_size"], config["attention_key_size"]

    def norm(x):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-7)

    turns = np.exp(1j * np.arange(tokens.shape[1])[:, None] * 10000.0 ** (-np.arange(0, size, 2) / size))

    def turned(x):
        return (x[..., 0::2] + 1j * x[..., 1::2]) * turns

    words = tensors["bert/embeddings/word_embeddings"]
    x = norm(words[tokens] + tensors["bert/embeddings/token_type_embeddings"][segments])
    hidden = (tokens == 0) & (np.arange(tokens.shape[1]) > 0)
    keys = np.sum(~hidden, axis=1)[:, None, None]
    for layer in range(config["num_hidden_layers"]):
        name = f"GAU_alpha/encoder/layer_{layer}/gau"
        inner = x @ tensors[f"{name}/i_dense/kernel"]
        inner = inner / (1 + np.exp(-inner))
        u, v, shared = inner[..., :units], inner[..., units : 2 * units], inner[..., 2 * units :]
        query, key = (turned(shared * tensors[f"{name}/{part}_scaleoffset/gamma"]) for part in "qk")
        scores = np.real(query @ key.conj().transpose(0, 2, 1)) / np.sqrt(size)
        scores = np.where(hidden[:, None, :], -np.inf, scores * np.log(np.maximum(keys, 16)) / np.log(512))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        x = norm(x + (u * (weights @ v)) @ tensors[f"{name}/o_dense/kernel"])
    return x, x @ words.T


def test_the_fixture_holds_what_numpy_computes_and_the_model_gives_it():
    inputs, outputs = np.load(FOLDER / "inputs.npz"), np.load(FOLDER / "outputs.npz")
    with tfloader.open_checkpoint(FOLDER) as checkpoint:
        tensors = {name: checkpoint.read(name) for name in checkpoint}
    config = json.loads((FOLDER / "bert_config.json").read_text())
    values = [inputs["input_ids"], inputs["segment_ids"]]
    for found, name in zip(reference(tensors, config, *values), ("sequence_output", "mlm_logits"), strict=True):
        np.testing.assert_array_equal(found.astype("float32"), outputs[name])
    assert relative_error(tfloader.load(FOLDER)(values), outputs["sequence_output"]) < 5e-6


@pytest.mark.parametrize(
    "option",
    [
        {"custom_position_ids": True},
        {"custom_attention_mask": True},
        {"residual_attention_scores": True},
        {"with_pool": True},
        {"hierarchical_position": True},
        {"application": "lm"},
    ],
    ids=str,
)
def test_options_that_its_unit_cannot_honour_are_refused(option):
    with pytest.raises(ConfigError, match=next(iter(option))):
        tfloader.load(FOLDER, **option)
