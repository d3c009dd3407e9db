"""Families from outside that override what they may: generation gives what their model computes, or refuses."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
from keras import ops

import tfloader
from tests.conftest import CHECKPOINTS
from tests.generation.models import TWO_LAYERS
from tfloader import layers as tfl
from tfloader.errors import ConfigError
from tfloader.exporting.decoding import CachedDecoding
from tfloader.generation.text import TextGenerator
from tfloader.models.bert import BERT
from tfloader.models.gpt2 import GPT2
from tfloader.models.nezha import NEZHA
from tfloader.models.roformer import RoFormer
from tfloader.models.t5 import T5


class Near(keras.layers.Layer):
    """Hides keys more than two tokens before the query."""

    def call(self, bias, tokens):
        place = ops.arange(ops.shape(tokens)[1])
        near = place[None, :] > place[:, None] - 3
        return bias + ops.cast(ops.where(near, 0.0, -1e30), bias.dtype)

    def compute_output_spec(self, bias, tokens):
        return keras.KerasTensor((None, None, tokens.shape[1], tokens.shape[1]), bias.dtype)


class Window:
    def attention_bias(self, inputs):
        return self.layer("Near", Near)(super().attention_bias(inputs), inputs["Input-Token"])


class Causal(keras.layers.Layer):
    """Knows nothing of masks."""

    def call(self, tokens):
        place = ops.arange(ops.shape(tokens)[1])
        return ops.where(place[None, :] <= place[:, None], 0.0, -1e30)[None, None]

    def compute_output_spec(self, tokens):
        return keras.KerasTensor((1, 1, tokens.shape[1], tokens.shape[1]))


class OwnMask:
    def attention_bias(self, inputs):
        return self.layer("Causal", Causal)(inputs["Input-Token"])


class Gain:
    def attention(self, name, x, bias, memory=None, **arguments):
        return self.layer(f"{name}-Gain", tfl.Scale, factor=2.0)(super().attention(name, x, bias, memory, **arguments))


class WeightedResidual:
    def add(self, name, x, *others):
        if name.endswith("-Add"):
            x = self.layer(f"{name}-Alpha", tfl.Scale, factor=1.5)(x)
        return super().add(name, x, *others)


class OwnNorm:
    def norm(self, name, x, **arguments):
        return self.layer(f"{name}-Half", tfl.Scale, factor=0.5)(super().norm(name, x, **arguments))


class OwnEmbedding:
    def embed(self, inputs):
        return self.layer("Embedding-Double", tfl.Scale, factor=2.0)(super().embed(inputs))


class Twice:
    """Each block is applied twice, so that its layers have two sets of keys and values."""

    def block(self, x, index):
        return super().block(super().block(x, index), index)


class Scores:
    """Scores are doubled, and the values of a head are weighted by it."""

    def scores(self, query, key):
        return 2.0 * super().scores(query, key)

    def context(self, probabilities, value):
        weights = ops.arange(1, self.num_heads + 1, dtype="float32") / self.num_heads
        return super().context(probabilities, value) * ops.cast(ops.reshape(weights, (1, -1, 1, 1)), value.dtype)


class Soft:
    """All that a class of attention may do with its keys."""

    def scores(self, query, key):
        return ops.tanh(super().scores(query, key)) * ops.cast(3.0, query.dtype)


def attending(mixin, base):
    return {"attention_class": type(mixin.__name__, (mixin, base.attention_class), {})}


class Vectors:
    """Distances count for nothing beyond 1."""

    def vectors(self, distances):
        return super().vectors(ops.clip(distances, -1, 1))


class Positions:
    """Queries and keys are rotated the other way."""

    def apply_positions(self, x, positions):
        return ops.flip(super().apply_positions(ops.flip(x, -1), positions), -1)


ATTENTIONS = [Scores, Soft]
BASES = {
    "gpt2": (GPT2, "hf_gpt2", TWO_LAYERS),
    "bert_lm": (BERT, "b4k_bert_lm", {"application": "lm", **TWO_LAYERS}),
    "unilm": (BERT, "b4k_bert_unilm", {"application": "unilm", **TWO_LAYERS}),
    "nezha": (NEZHA, "b4k_nezha", {"application": "lm", **TWO_LAYERS}),
    "roformer": (RoFormer, "hf_roformer", {"application": "lm", **TWO_LAYERS}),
    "t5": (T5, "hf_t5_v11", {"num_hidden_layers": 1, "num_decoder_layers": 2}),
}
# GPT-2's other seams, and greedy search, are in tests/models/test_out_of_tree.py, beside NumPy.
CELLS = [
    *[("gpt2", override) for override in (OwnMask, Twice, Soft)],
    *[("unilm", override) for override in (Window, OwnEmbedding, Soft)],
    *[("t5", override) for override in (Window, WeightedResidual, Twice, Scores)],
    *[("bert_lm", override) for override in (Gain, OwnNorm)],
    *[("nezha", override) for override in (Window, Scores, Vectors)],
    *[("roformer", override) for override in (Soft, Positions)],
]


@functools.cache
def guest(base, override):
    family, folder, options = BASES[base]
    inner = override in (*ATTENTIONS, Vectors, Positions)
    attributes = attending(override, family) if inner else {}
    own = type(f"{override.__name__}{family.__name__}", (family,) if inner else (override, family), attributes)
    model = tfloader.load(CHECKPOINTS / folder, model=own, **options)
    return model, TextGenerator(model)


def log_probabilities(model, prompt, ids):
    """Of the tokens behind each of prompt + ids[:n], by reading the whole text at once."""
    transformer, text = model.transformer, [*prompt, *ids[:-1]]
    if transformer.answers_sources:
        inputs, first = ([prompt], [[transformer.start_token_id, *ids[:-1]]]), 0
    else:
        unilm, first = transformer.config.application == "unilm", len(prompt) - 1
        inputs = [text], [[int(unilm and place > first) for place in range(len(text))]]
    inputs = [np.array(item) for item in inputs[: len(model.inputs)]]
    logits = np.asarray(model(inputs if len(inputs) > 1 else inputs[0]), "float64")[0, first:]
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@functools.cache
def plain(base):
    return tfloader.load(CHECKPOINTS / BASES[base][1], **BASES[base][2])


@pytest.mark.slow
@pytest.mark.parametrize(("base", "override"), CELLS, ids=[f"{base}-{override.__name__}" for base, override in CELLS])
def test_a_guest_generates_what_its_model_computes(base, override):
    model, made = guest(base, override)
    random = np.random.default_rng(3)
    prompts = [random.integers(2, 200, size).tolist() for size in (6, 1, 3)]
    # Padding is suppressed, which BERT's kin hide in a text that is read whole.
    free = {"max_new_tokens": 5, "eos_token_id": None, "suppress_tokens": [0], "num_return_sequences": 2}
    samples = made.generate_ids(prompts, do_sample=True, seed=2, return_scores=True, **free)
    for row, (ids, scores) in enumerate(zip(samples.sequences, samples.token_scores, strict=True)):
        expected = log_probabilities(model, prompts[row // 2], ids)
        np.testing.assert_allclose(scores, expected[np.arange(len(ids)), ids], atol=2e-4)
    alike = np.allclose(expected, log_probabilities(plain(base), prompts[-1], ids), atol=1e-3)
    assert alike == (override is OwnMask)

    beams = made.generate_ids(prompts[:2], num_beams=3, length_penalty=0.0, **free)
    for row, (ids, score) in enumerate(zip(beams.sequences, beams.scores, strict=True)):
        chosen = log_probabilities(model, prompts[row // 2], ids)[np.arange(len(ids)), ids]
        np.testing.assert_allclose(score, chosen.sum(), atol=1e-3)


class Shift(keras.layers.Layer):
    """The mean of each token and the one before it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return (x + ops.pad(x[:, :-1], [[0, 0], [1, 0], [0, 0]])) / 2


class Convolution:
    def block(self, x, index):
        return super().block(self.layer(f"Shift-{index}", Shift)(x), index)


class BeforeTheOutput:
    def head(self, x):
        return super().head(self.layer("Shift", Shift)(x))


@pytest.mark.parametrize("override", [Convolution, BeforeTheOutput])
@pytest.mark.parametrize("base", ["gpt2", "t5"])
def test_what_mixes_positions_beside_attention_is_refused_with_the_reason(base, override):
    with pytest.raises(ConfigError, match=r"Shift: this .* cannot generate with a cache: .* logits differ"):
        guest(base, override)


class Far(keras.layers.Layer):
    """Adds the token eight places before."""

    def call(self, x):
        return x + ops.pad(x, [[0, 0], [8, 0], [0, 0]])[:, :-8]


class Dilation:
    def block(self, x, index):
        return super().block(self.layer(f"Far-{index}", Far)(x), index)


class ByShape:
    """A window of eight tokens which takes the last key for the query's own: generation has free slots there."""

    def scores(self, query, key):
        queries, keys = ops.shape(query)[2], ops.shape(key)[2]
        distance = (ops.arange(queries) + keys - queries)[:, None] - ops.arange(keys)[None]
        return ops.where(distance < 8, super().scores(query, key), -1e9)


class LongTexts:
    """Attention to all is sharper in texts above 16 tokens."""

    def scores(self, query, key):
        return super().scores(query, key) * ops.log(ops.cast(ops.maximum(ops.shape(key)[2], 16), query.dtype))


class Chunks(keras.layers.Layer):
    """Hides all but the query's own twelve slots, wherever the text begins."""

    def call(self, bias):
        chunk = ops.arange(ops.shape(bias)[-1]) // 12
        return bias + ops.cast(ops.where(chunk[:, None] == chunk, 0.0, -1e30), bias.dtype)

    def compute_output_spec(self, bias):
        return keras.KerasTensor(bias.shape, bias.dtype)


class Chunked:
    def attention_bias(self, inputs):
        return self.layer("Chunks", Chunks)(super().attention_bias(inputs))


@pytest.mark.parametrize("override", [Dilation, ByShape, LongTexts, Chunked])
def test_what_shows_in_long_texts_alone_is_refused(override):
    attributes = attending(override, GPT2) if override in (ByShape, LongTexts) else {}
    bases = (GPT2,) if attributes else (override, GPT2)
    with pytest.raises(ConfigError, match=r"cannot generate with a cache: .* logits differ"):
        TextGenerator(built(type("LongGPT2", bases, attributes)))


def test_a_function_put_on_a_class_or_a_layer_is_compared_too(monkeypatch):
    model = built("gpt2")
    norm, call = model.get_layer("Output-Norm"), keras.layers.LayerNormalization.call
    with monkeypatch.context() as patch:
        patch.setattr(norm, "call", lambda x: 2 * call(norm, x))
        with pytest.raises(ConfigError, match=r"LayerNormalization\.call: .* logits differ"):
            TextGenerator(model)
    with monkeypatch.context() as patch:
        patch.setattr(keras.layers.LayerNormalization, "call", lambda self, x: 2 * call(self, x))
        with pytest.raises(ConfigError, match=r"LayerNormalization\.call: .* logits differ"):
            TextGenerator(model)
    assert TextGenerator(model)


class Untrained:
    """A convolution that starts at zero: only training shows it."""

    def block(self, x, index):
        layer = self.layer(
            f"Convolution-{index}",
            keras.layers.Conv1D,
            filters=16,
            kernel_size=2,
            padding="causal",
            kernel_initializer="zeros",
        )
        return super().block(self.add(f"Convolution-{index}-Add", x, layer(x)), index)


class Unwilling:
    """An attention class that takes no cache."""

    def call(self, x, memory=None, bias=None, residual_scores=None, positions=None):
        return super().call(x, memory=memory, bias=bias, positions=positions)


def built(family):
    """Of random weights so large that what attention does with its scores shows in the logits."""
    keras.utils.set_random_seed(0)
    sizes = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = {"model_type": "gpt2", "initializer_range": 0.2, **sizes}
    return tfloader.build_transformer_model(config, model=family, final_activation="linear")


def test_what_is_not_trained_yet_does_not_hide():
    with pytest.raises(ConfigError, match="cannot generate with a cache"):
        TextGenerator(built(type("UntrainedGPT2", (Untrained, GPT2), {})))


def test_an_attention_that_takes_no_cache_is_refused():
    with pytest.raises(ConfigError, match="cache"):
        TextGenerator(built(type("UnwillingGPT2", (GPT2,), attending(Unwilling, GPT2))))


def test_the_old_name_of_apply_positions_is_refused():
    old = type("Old", (tfl.MultiHeadAttention,), {"placed": lambda self, x, positions: x})
    with pytest.raises(ConfigError, match=r"Old\.placed: this method is called apply_positions now"):
        old(2, 4, 8)


def test_a_bias_of_ones_own_is_refused_where_a_step_does_not_have_the_text():
    with pytest.raises(ConfigError, match="attention_bias is asked for the text so far"):
        CachedDecoding(guest("gpt2", Window)[0].transformer)


def test_a_model_with_one_head_generates():
    config = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 1, "n_positions": 64, "model_type": "gpt2"}
    model = tfloader.build_transformer_model(config, model="gpt2", final_activation="linear")
    found = TextGenerator(model).generate_ids([[5, 6, 7]], max_new_tokens=6, eos_token_id=None).sequences[0]
    assert found == log_probabilities(model, [5, 6, 7], found).argmax(axis=1).tolist()
