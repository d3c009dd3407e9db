"""BERT as Google published it (google-research/bert, 2018): a TensorFlow checkpoint and bert_config.json.

"gelu" in that code is the tanh approximation and every LayerNorm has epsilon 1e-12.
"""

from __future__ import annotations

from typing import Any

from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming.base import ATTENTION, FEED_FORWARD, TF, Naming, Transpose, row
from tfloader.naming.dialect import Dialect, Key, same
from tfloader.naming.hf_bert import DIALECT as HF_DIALECT
from tfloader.naming.release import TENSORFLOW, TF_OPTIMIZER_SLOTS, Release

BLOCK = "bert/encoder/layer_{layer}"
POSITION_TABLE, SEGMENT_TABLE = "bert/embeddings/position_embeddings", "bert/embeddings/token_type_embeddings"
dense, norm = TF.dense, TF.norm

NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "bert/embeddings/word_embeddings"),
        row("Embedding-Segment/embeddings", SEGMENT_TABLE, part="segments"),
        row("Embedding-Position/embeddings", POSITION_TABLE),
        *norm("Embedding-Norm", "bert/embeddings/LayerNorm"),
        *dense(f"{ATTENTION}/query", f"{BLOCK}/attention/self/query"),
        *dense(f"{ATTENTION}/key", f"{BLOCK}/attention/self/key"),
        *dense(f"{ATTENTION}/value", f"{BLOCK}/attention/self/value"),
        *dense(f"{ATTENTION}/output_dense", f"{BLOCK}/attention/output/dense"),
        *norm(f"{ATTENTION}-Norm", f"{BLOCK}/attention/output/LayerNorm"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{BLOCK}/intermediate/dense"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{BLOCK}/output/dense"),
        *norm(f"{FEED_FORWARD}-Norm", f"{BLOCK}/output/LayerNorm"),
        *dense("Pooler-Dense", "bert/pooler/dense", "pooler"),
        row("NSP-Proba/kernel", "cls/seq_relationship/output_weights", Transpose(), "nsp"),
        row("NSP-Proba/bias", "cls/seq_relationship/output_bias", part="nsp"),
        *dense("MLM-Dense", "cls/predictions/transform/dense", "mlm"),
        *norm("MLM-Norm", "cls/predictions/transform/LayerNorm", "mlm"),
        row("MLM-Bias/bias", "cls/predictions/output_bias", part="mlm"),
    ),
    ignorable=TF_OPTIMIZER_SLOTS,
)

# The dimensions under the names that Google's code, bert4keras and gpt2-ml share.
SIZES = (
    *same("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    Key("hidden_dropout_prob", "hidden_dropout_prob", 0.1, aliases=("dropout_rate",)),
    Key("attention_probs_dropout_prob", "attention_probs_dropout_prob", 0.1, aliases=("attention_dropout_rate",)),
    *same(initializer_range=0.02),
)

GOOGLE_HARMLESS = (
    "pooler_(fc_size|num_attention_heads|num_fc_layers|size_per_head|type)",
    "model_type|architectures|_name_or_path|transformers_version",
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
ACTIVATION = Key("hidden_act", "hidden_act", values=ACTIVATIONS)
POSITIONS = Key("max_position_embeddings", "max_position_embeddings", 512, aliases=("max_position",))
SEGMENTS = Key("type_vocab_size", "type_vocab_size", 2, aliases=("segment_vocab_size",))


def _refuse_without_segments(config: TransformerConfig, raw: dict[str, Any]) -> None:
    """Without their table the tensors would be named as those of another release, NEZHA-GEN."""
    if not config.type_vocab_size:
        raise ConfigError("In this format there are always segments; the model has none. Save as 'huggingface'.")


def write_embedding_size(config: TransformerConfig, raw: dict[str, Any]) -> None:
    """For formats that have no null for "as hidden_size"."""
    raw["embedding_size"] = config.embedding_size or config.hidden_size


DIALECT = Dialect(
    name="Google BERT",
    keys=(*SIZES, ACTIVATION, POSITIONS, SEGMENTS),
    fixed={"layer_norm_eps": 1e-12, "pad_token_id": 0},
    only={"directionality": ("bidi",), "ln_type": ("postln",)},
    harmless=GOOGLE_HARMLESS,
    finish_write=_refuse_without_segments,
)

RELEASE = Release(
    name="google_bert",
    title="Google BERT (TensorFlow checkpoint)",
    family="bert",
    **TENSORFLOW,
    # RoFormer and NEZHA have all names but the first, NEZHA-GEN all but the second.
    signature=(POSITION_TABLE, SEGMENT_TABLE),
    # Google's ALBERT, and brightmart's first one.
    lacks=(
        "bert/encoder/transformer/group_0/inner_group_0/attention_1/self/query/kernel",
        "bert/embeddings/word_embeddings_2",
    ),
    naming=NAMING,
    config_files=("bert_config.json", "*config*.json"),
    dialects=(DIALECT, HF_DIALECT),
)
