"""The models that the tests of generation share, loaded once, and reading without a cache."""

from __future__ import annotations

import functools
import json

import keras
import numpy as np
import tensorflow as tf

import tfloader
from tests.conftest import CHECKPOINTS
from tfloader.generation.text import TextGenerator

# The first layer's keys and values know nothing of what the layer computes; the second layer's do.
TWO_LAYERS = {"num_hidden_layers": 2}
LANGUAGE_MODELS = [
    ("hf_gpt2", {}),
    ("gpt2_ml", {}),
    ("b4k_gpt_segtable", {}),
    ("b4k_bert_lm", {"application": "lm"}),
    ("b4k_bert_unilm", {"application": "unilm"}),
    ("b4k_nezha", {"application": "unilm"}),
]
LAST_HIDDEN = {
    "gpt": "Transformer-{last}-FeedForward-Norm",
    "gpt2": "Output-Norm",
    "gpt2_ml": "Transformer-{last}-FeedForward-Norm-1",
    "bert": "Transformer-{last}-FeedForward-Norm",
    "nezha": "Transformer-{last}-FeedForward-Norm",
}


@functools.cache
def generator(name, **options):
    """Without a tokenizer: for token ids."""
    return TextGenerator(tfloader.load(CHECKPOINTS / name, **options))


@functools.cache
def reader(name, **options):
    """A function of (tokens [rows, length], length of the prompt) that gives (logits, last hidden states)."""
    model, config = (generator(name, **options).transformer.model, generator(name, **options).config)
    last = model.get_layer(LAST_HIDDEN[config.family].format(last=config.num_hidden_layers - 1))
    both = keras.Model(model.inputs, [model.output, last.output])
    ids = [tf.TensorSpec([None, None], tf.int32)] * len(model.inputs)
    read_ids = tf.function(lambda *ids: both(list(ids)), input_signature=ids, autograph=False)

    def read(tokens, prompt):
        tokens = np.asarray(tokens, "int32")
        new = np.broadcast_to(np.arange(tokens.shape[1]) >= prompt, tokens.shape)
        segments = (new & (config.application == "unilm")).astype("int32")
        return [np.asarray(output, "float64") for output in read_ids(*[tokens, segments][: len(ids)])]

    return read


def make_chinese_gpt2(folder, **config):
    """Saves a random GPT-2 with a WordPiece vocabulary of a few characters; returns the folder."""
    return make_gpt2(
        folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"春江潮水连海平月共生，。诗词绝句律《》："], **config
    )


def make_gpt2(folder, tokens, **config):
    """Saves a random GPT-2 with these WordPieces, as folders made with UER are; returns the folder."""
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "initializer_range": 0.5}
    config = {"model_type": "gpt2", "vocab_size": len(tokens), **sizes, **config}
    keras.utils.set_random_seed(1)
    model = tfloader.build_transformer_model(config, model="gpt2", final_activation="linear")
    tfloader.save(model, folder)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", "utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
