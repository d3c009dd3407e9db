"""BERT as Google published it (google-research/bert, 2018): a TensorFlow checkpoint and bert_config.json.

"gelu" in that code is the tanh approximation and every LayerNorm has epsilon 1e-12.
"""

from __future__ import annotations

from typing import Any

from tfloader.config import Dialect, Key, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming.base import TF_OPTIMIZER_SLOTS, Naming, Release, Transpose, row
from tfloader.naming.hf_bert import DIALECT as HF_DIALECT

BLOCK = "bert/encoder/layer_{layer}"
ATTENTION = "Transformer-{layer}-MultiHeadSelfAttention"
FEED_FORWARD = "Transformer-{layer}-FeedForward"

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "bert/embeddings/word_embeddings"),
        row("Embedding-Segment/embeddings", "bert/embeddings/token_type_embeddings", part="segments"),
        row("Embedding-Position/embeddings", "bert/embeddings/position_embeddings"),
        row("Embedding-Norm/gamma", "bert/embeddings/LayerNorm/gamma"),
        row("Embedding-Norm/beta", "bert/embeddings/LayerNorm/beta"),
        row(f"{ATTENTION}/query/kernel", f"{BLOCK}/attention/self/query/kernel"),
        row(f"{ATTENTION}/query/bias", f"{BLOCK}/attention/self/query/bias"),
        row(f"{ATTENTION}/key/kernel", f"{BLOCK}/attention/self/key/kernel"),
        row(f"{ATTENTION}/key/bias", f"{BLOCK}/attention/self/key/bias"),
        row(f"{ATTENTION}/value/kernel", f"{BLOCK}/attention/self/value/kernel"),
        row(f"{ATTENTION}/value/bias", f"{BLOCK}/attention/self/value/bias"),
        row(f"{ATTENTION}/output_dense/kernel", f"{BLOCK}/attention/output/dense/kernel"),
        row(f"{ATTENTION}/output_dense/bias", f"{BLOCK}/attention/output/dense/bias"),
        row(f"{ATTENTION}-Norm/gamma", f"{BLOCK}/attention/output/LayerNorm/gamma"),
        row(f"{ATTENTION}-Norm/beta", f"{BLOCK}/attention/output/LayerNorm/beta"),
        row(f"{FEED_FORWARD}/intermediate/kernel", f"{BLOCK}/intermediate/dense/kernel"),
        row(f"{FEED_FORWARD}/intermediate/bias", f"{BLOCK}/intermediate/dense/bias"),
        row(f"{FEED_FORWARD}/output_dense/kernel", f"{BLOCK}/output/dense/kernel"),
        row(f"{FEED_FORWARD}/output_dense/bias", f"{BLOCK}/output/dense/bias"),
        row(f"{FEED_FORWARD}-Norm/gamma", f"{BLOCK}/output/LayerNorm/gamma"),
        row(f"{FEED_FORWARD}-Norm/beta", f"{BLOCK}/output/LayerNorm/beta"),
        row("Pooler-Dense/kernel", "bert/pooler/dense/kernel", part="pooler"),
        row("Pooler-Dense/bias", "bert/pooler/dense/bias", part="pooler"),
        row("NSP-Proba/kernel", "cls/seq_relationship/output_weights", Transpose(), part="nsp"),
        row("NSP-Proba/bias", "cls/seq_relationship/output_bias", part="nsp"),
        row("MLM-Dense/kernel", "cls/predictions/transform/dense/kernel", part="mlm"),
        row("MLM-Dense/bias", "cls/predictions/transform/dense/bias", part="mlm"),
        row("MLM-Norm/gamma", "cls/predictions/transform/LayerNorm/gamma", part="mlm"),
        row("MLM-Norm/beta", "cls/predictions/transform/LayerNorm/beta", part="mlm"),
        row("MLM-Bias/bias", "cls/predictions/output_bias", part="mlm"),
    ),
    ignorable=TF_OPTIMIZER_SLOTS,
)

# The dimensions under the names that Google's code, bert4keras and gpt2-ml share.
SIZES = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "hidden_size"),
    Key("num_hidden_layers", "num_hidden_layers"),
    Key("num_attention_heads", "num_attention_heads"),
    Key("intermediate_size", "intermediate_size"),
    Key("hidden_dropout_prob", "hidden_dropout_prob", 0.1, aliases=("dropout_rate",)),
    Key("attention_probs_dropout_prob", "attention_probs_dropout_prob", 0.1, aliases=("attention_dropout_rate",)),
    Key("initializer_range", "initializer_range", 0.02),
)

GOOGLE_HARMLESS = (
    "pooler_(fc_size|num_attention_heads|num_fc_layers|size_per_head|type)",
    "model_type|architectures|_name_or_path|transformers_version|tfloader",
    "name",
)

# Google's code knows the first four; "gelu_erf" it refuses, so that the exact form cannot be mistaken for its own.
ACTIVATIONS = {
    "gelu": "gelu_tanh",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
    "gelu_erf": "gelu",
    "gelu_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "sigmoid": "sigmoid",
}


def _refuse_without_segments(config: TransformerConfig, raw: dict[str, Any]) -> None:
    """Without their table the tensors would be named as those of another release, NEZHA-GEN."""
    if not config.type_vocab_size:
        raise ConfigError("In this format there are always segments; the model has none. Save as 'huggingface'.")


DIALECT = Dialect(
    name="Google BERT",
    keys=(
        *SIZES,
        Key("hidden_act", "hidden_act", values=ACTIVATIONS),
        Key("max_position_embeddings", "max_position_embeddings", 512, aliases=("max_position",)),
        Key("type_vocab_size", "type_vocab_size", 2, aliases=("segment_vocab_size",)),
    ),
    fixed={"layer_norm_eps": 1e-12, "pad_token_id": 0},
    only={"directionality": ("bidi",), "ln_type": ("postln",)},
    harmless=GOOGLE_HARMLESS,
    finish_write=_refuse_without_segments,
)

RELEASE = Release(
    name="google_bert",
    title="Google BERT (TensorFlow checkpoint)",
    family="bert",
    formats=("tensorflow", "memory"),
    # RoFormer and NEZHA have all names but the first, NEZHA-GEN all but the second.
    signature=("bert/embeddings/position_embeddings", "bert/embeddings/token_type_embeddings"),
    # Google's ALBERT, and brightmart's first one.
    lacks=(
        "bert/encoder/transformer/group_0/inner_group_0/attention_1/self/query/kernel",
        "bert/embeddings/word_embeddings_2",
    ),
    naming=NAMING,
    config_files=("bert_config.json", "*config*.json"),
    dialects=(DIALECT, HF_DIALECT),
    writes="tensorflow",
    written_config="bert_config.json",
)
