"""ELECTRA in Hugging Face folders: config.json beside safetensors or pytorch_model.bin.

Discriminator and generator are models of one type; their heads tell them apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.naming import hf_bert, huggingface
from tfloader.naming.base import TORCH, Duplicate, row
from tfloader.naming.dialect import revised, same
from tfloader.naming.release import Release

dense, norm = TORCH.dense, TORCH.norm
BODY = hf_bert.naming_of(
    "electra.", {"bert.pooler.": None, "cls.": None}, dense("Embedding-Mapping", "electra.embeddings_project")
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
    keys=(*hf_bert.DIALECT.keys, *same(embedding_size=128)),
    harmless=(*hf_bert.DIALECT.harmless, "summary_last_dropout"),
    constants={"model_type": "electra"},
    finish_write=_finish_write,
)
GENERATOR_DIALECT = replace(
    DIALECT,
    name="Hugging Face ELECTRA generator",
    keys=revised(DIALECT.keys, huggingface.EXACT_GELU),
)

RELEASE = Release(
    name="hf_electra",
    title="Hugging Face ELECTRA",
    family="electra",
    signature="electra.embeddings.word_embeddings.weight",
    lacks=("electra.pooler.dense.weight", "generator_predictions.dense.weight"),
    naming=NAMING,
    dialects=(DIALECT,),
    architectures={"discriminator": "ElectraForPreTraining", "mlm": "ElectraForMaskedLM", None: "ElectraModel"},
    body="electra.",
    **huggingface.FOLDER,
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
