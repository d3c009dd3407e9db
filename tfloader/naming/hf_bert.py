"""BERT in Hugging Face folders: config.json beside safetensors, pytorch_model.bin or tf_model.h5.

"gelu" here is the exact (erf) form; the epsilon stands in the config.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tfloader.config import Dialect, Key, TransformerConfig
from tfloader.naming import huggingface
from tfloader.naming.base import Duplicate, Naming, Release, Transpose, row

BLOCK = "bert.encoder.layer.{layer}"
ATTENTION = "Transformer-{layer}-MultiHeadSelfAttention"
FEED_FORWARD = "Transformer-{layer}-FeedForward"


def dense(ours: str, theirs: str, part: str | None = None) -> tuple:
    return (
        row(f"{ours}/kernel", f"{theirs}.weight", Transpose(), part),
        row(f"{ours}/bias", f"{theirs}.bias", part=part),
    )


def norm(ours: str, theirs: str, part: str | None = None) -> tuple:
    return row(f"{ours}/gamma", f"{theirs}.weight", part=part), row(f"{ours}/beta", f"{theirs}.bias", part=part)


NAMING = Naming(
    rows=(
        row("Embedding-Token/embeddings", "bert.embeddings.word_embeddings.weight"),
        row("Embedding-Position/embeddings", "bert.embeddings.position_embeddings.weight"),
        row("Embedding-Segment/embeddings", "bert.embeddings.token_type_embeddings.weight", part="segments"),
        *norm("Embedding-Norm", "bert.embeddings.LayerNorm"),
        *dense(f"{ATTENTION}/query", f"{BLOCK}.attention.self.query"),
        *dense(f"{ATTENTION}/key", f"{BLOCK}.attention.self.key"),
        *dense(f"{ATTENTION}/value", f"{BLOCK}.attention.self.value"),
        *dense(f"{ATTENTION}/output_dense", f"{BLOCK}.attention.output.dense"),
        *norm(f"{ATTENTION}-Norm", f"{BLOCK}.attention.output.LayerNorm"),
        *dense(f"{FEED_FORWARD}/intermediate", f"{BLOCK}.intermediate.dense"),
        *dense(f"{FEED_FORWARD}/output_dense", f"{BLOCK}.output.dense"),
        *norm(f"{FEED_FORWARD}-Norm", f"{BLOCK}.output.LayerNorm"),
        *dense("Pooler-Dense", "bert.pooler.dense", "pooler"),
        *dense("NSP-Proba", "cls.seq_relationship", "nsp"),
        *dense("MLM-Dense", "cls.predictions.transform.dense", "mlm"),
        *norm("MLM-Norm", "cls.predictions.transform.LayerNorm", "mlm"),
        row("MLM-Bias/bias", "cls.predictions.bias", part="mlm"),
    ),
    old_names=(
        (r"^(module\.)+", ""),  # saved from torch's DataParallel
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (r"^(embeddings|encoder|pooler)\.", r"bert.\1."),  # BertModel saved alone
    ),
    ignorable=(r"(^|\.)embeddings\.(position_ids|token_type_ids)$",),
    duplicates=(
        Duplicate("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        Duplicate("cls.predictions.decoder.bias", "cls.predictions.bias", written=True),
    ),
)


# What Hugging Face's key words cannot say, and what silence means.
NOTES = {"application": "encoder", "mlm_norm_eps": None}


def _read_notes(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Any) -> None:
    """A BERT marked as decoder attends causally; our own notes say more: "unilm", and an epsilon of the head's own."""
    if raw.get("is_decoder"):
        fields["application"] = "lm"
    noted = raw.get("tfloader")
    if isinstance(noted, dict):
        fields |= {name: noted[name] for name in NOTES if name in noted}


def _write_notes(config: TransformerConfig, raw: dict[str, Any]) -> None:
    raw["is_decoder"] = config.application == "lm"
    notes = {name: getattr(config, name) for name, silent in NOTES.items() if getattr(config, name) != silent}
    if notes:
        raw["tfloader"] = notes


DIALECT = Dialect(
    name="Hugging Face BERT",
    keys=(
        Key("vocab_size", "vocab_size"),
        Key("hidden_size", "hidden_size"),
        Key("num_hidden_layers", "num_hidden_layers"),
        Key("num_attention_heads", "num_attention_heads"),
        Key("intermediate_size", "intermediate_size"),
        Key("hidden_act", "hidden_act", values=huggingface.ACTIVATIONS),
        Key("max_position_embeddings", "max_position_embeddings"),
        Key("type_vocab_size", "type_vocab_size", 2),
        Key("layer_norm_eps", "layer_norm_eps", 1e-12),
        Key("hidden_dropout_prob", "hidden_dropout_prob", 0.1),
        Key("attention_probs_dropout_prob", "attention_probs_dropout_prob", 0.1),
        Key("initializer_range", "initializer_range", 0.02),
        Key("pad_token_id", "pad_token_id", 0),
        Key("eos_token_id", "eos_token_id", None),
    ),
    only={
        **huggingface.ONLY,
        "position_embedding_type": ("absolute",),
        "tie_word_embeddings": (True,),
        "is_decoder": (False, True),
    },
    harmless=huggingface.HARMLESS,
    constants={"model_type": "bert"},
    finish_read=_read_notes,
    finish_write=_write_notes,
)


def _architecture(names: Collection[str]) -> tuple[str, str]:
    """The class that holds just these tensors, and the prefix that its files lack (BertModel saved alone)."""
    if any(name.startswith("cls.seq_relationship") for name in names):
        return "BertForPreTraining", ""
    if any(name.startswith("cls.predictions") for name in names):
        return "BertForMaskedLM", ""
    return "BertModel", "bert."


RELEASE = Release(
    name="hf_bert",
    title="Hugging Face BERT",
    family="bert",
    formats=("safetensors", "torch", "memory"),
    signature="bert.embeddings.position_embeddings.weight",
    naming=NAMING,
    config_files=("config.json",),
    dialects=(DIALECT,),
    writes="huggingface",
    architecture=_architecture,
)

H5_RELEASE = Release(
    name="hf_bert_h5",
    title="Hugging Face BERT (tf_model.h5)",
    family="bert",
    formats=("hdf5",),
    signature=RELEASE.signature,
    naming=huggingface.h5_naming(NAMING),
    config_files=RELEASE.config_files,
    dialects=RELEASE.dialects,
)
