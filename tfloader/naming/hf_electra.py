"""ELECTRA in Hugging Face folders: config.json beside safetensors or pytorch_model.bin.

Discriminator and generator are models of one type; their heads tell them apart.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from tfloader.config import Key, TransformerConfig
from tfloader.naming import hf_bert
from tfloader.naming.base import Duplicate, Naming, Release, renamed, row
from tfloader.naming.hf_bert import dense, norm

BODY = Naming(
    rows=(
        *renamed(hf_bert.NAMING.rows, {"bert.pooler.": None, "bert.": "electra.", "cls.": None}),
        *dense("Embedding-Mapping", "electra.embeddings_project"),
    ),
    old_names=(
        *hf_bert.NAMING.old_names[:-1],
        (r"^(embeddings|embeddings_project|encoder|pooler)\.", r"electra.\1."),  # ElectraModel saved alone
    ),
    ignorable=hf_bert.NAMING.ignorable,
)

NAMING = replace(
    BODY,
    rows=(
        *BODY.rows,
        *dense("Discriminator-Dense", "discriminator_predictions.dense", "discriminator"),
        *dense("Discriminator-Prediction", "discriminator_predictions.dense_prediction", "discriminator"),
    ),
)

GENERATOR_NAMING = replace(
    BODY,
    rows=(
        *BODY.rows,
        *dense("MLM-Dense", "generator_predictions.dense", "mlm"),
        *norm("MLM-Norm", "generator_predictions.LayerNorm", "mlm"),
        row("MLM-Bias/bias", "generator_lm_head.bias", part="mlm"),
    ),
    duplicates=(Duplicate("generator_lm_head.weight", "electra.embeddings.word_embeddings.weight"),),
)


def write_embedding_size(config: TransformerConfig, raw: dict[str, Any]) -> None:
    """Hugging Face's code takes no null for "as hidden_size"."""
    raw["embedding_size"] = config.embedding_size or config.hidden_size


def _finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    hf_bert.DIALECT.finish_write(config, raw)
    write_embedding_size(config, raw)


DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face ELECTRA",
    keys=(*hf_bert.DIALECT.keys, Key("embedding_size", "embedding_size", 128)),
    harmless=(*hf_bert.DIALECT.harmless, "summary_last_dropout"),
    constants={"model_type": "electra"},
    finish_write=_finish_write,
)
# The generator's head has the exact gelu, whatever the file says.
GENERATOR_DIALECT = replace(
    DIALECT,
    name="Hugging Face ELECTRA generator",
    keys=tuple(
        Key("hidden_act", "hidden_act", values={"gelu": "gelu"}) if key.ours == "hidden_act" else key
        for key in DIALECT.keys
    ),
)


def _architecture(names: Collection[str]) -> tuple[str, str]:
    """The class that holds just these tensors, and the prefix that its files lack (ElectraModel saved alone)."""
    if any(name.startswith("discriminator_predictions") for name in names):
        return "ElectraForPreTraining", ""
    if any(name.startswith("generator_predictions") for name in names):
        return "ElectraForMaskedLM", ""
    return "ElectraModel", "electra."


RELEASE = Release(
    name="hf_electra",
    title="Hugging Face ELECTRA",
    family="electra",
    formats=("safetensors", "torch", "memory"),
    signature="electra.embeddings.word_embeddings.weight",
    lacks=("electra.pooler.dense.weight", "generator_predictions.dense.weight"),
    naming=NAMING,
    config_files=("config.json",),
    dialects=(DIALECT,),
    writes="huggingface",
    architecture=_architecture,
)

GENERATOR_RELEASE = replace(
    RELEASE,
    name="hf_electra_generator",
    title="Hugging Face ELECTRA generator",
    family="electra_generator",
    signature="generator_predictions.dense.weight",
    lacks=(),
    naming=GENERATOR_NAMING,
    dialects=(GENERATOR_DIALECT,),
)
