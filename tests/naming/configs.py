"""Small valid configs of the three shapes there are, as the words of TransformerConfig, for the tests of dialects."""

from tfloader.config import TransformerConfig
from tfloader.naming import RELEASES

TINY = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
BERT = {"max_position_embeddings": 16, "type_vocab_size": 2, "pad_token_id": 0}
GPT2 = {
    "max_position_embeddings": 16,
    "application": "lm",
    "layer_norm_eps": 1e-5,
    "hidden_act": "gelu_tanh",
}
T5 = {
    "num_decoder_layers": 2,
    "attention_head_size": 3,
    "hidden_act": "relu",
    "pad_token_id": 0,
    "tie_word_embeddings": True,
    "scale_logits": True,
    "layer_norm_eps": 1e-6,
}


def config(family="bert", **fields):
    return TransformerConfig(family=family, **(TINY | fields))


def release(name):
    return next(item for item in RELEASES if item.name == name)


def t5_with(**fields):
    return config("t5", **(T5 | fields))
