"""RoBERTa in Hugging Face folders.

Positions count up from pad_token_id + 1, so the table has that many rows more than there are positions. The Chinese
RoBERTas are BERTs, published as such.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import Key, TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import hf_bert
from tfloader.naming.base import Duplicate, Naming, Release, renamed

TRANSFORM = "cls.predictions.transform"
NAMES = {
    "bert.": "roberta.",
    f"{TRANSFORM}.dense": "lm_head.dense",
    f"{TRANSFORM}.LayerNorm": "lm_head.layer_norm",
    "cls.predictions.": "lm_head.",
    "cls.seq_relationship.": None,
}

NAMING = Naming(
    rows=renamed(hf_bert.NAMING.rows, NAMES),
    old_names=(*hf_bert.NAMING.old_names[:-1], (r"^(embeddings|encoder|pooler)\.", r"roberta.\1.")),
    ignorable=hf_bert.NAMING.ignorable,
    duplicates=(
        Duplicate("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
        Duplicate("lm_head.decoder.bias", "lm_head.bias"),
    ),
)


def _read_positions(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    hf_bert.DIALECT.finish_read(fields, raw, tensors)
    rows, pad = fields["max_position_embeddings"], fields["pad_token_id"]
    if pad is None:
        raise ConfigError("pad_token_id is null, but RoBERTa's positions are counted from it.")
    if isinstance(rows, int) and isinstance(pad, int):  # or else the config is refused for it
        fields["max_position_embeddings"] = rows - pad - 1


def _write_positions(config: TransformerConfig, raw: dict[str, Any]) -> None:
    hf_bert.DIALECT.finish_write(config, raw)
    raw["max_position_embeddings"] += config.pad_token_id + 1


# What RoBERTa's own code takes for granted where a file is silent; its head has the exact gelu, whatever the file says.
KEYS = {
    "hidden_act": Key("hidden_act", "hidden_act", values={"gelu": "gelu"}),
    "pad_token_id": Key("pad_token_id", "pad_token_id", 1),
    "eos_token_id": Key("eos_token_id", "eos_token_id", 2),
}

DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face RoBERTa",
    keys=tuple(KEYS.get(key.ours, key) for key in hf_bert.DIALECT.keys),
    constants={"model_type": "roberta"},
    finish_read=_read_positions,
    finish_write=_write_positions,
)


def _architecture(names: Collection[str]) -> tuple[str, str]:
    if any(name.startswith("lm_head.") for name in names):
        return "RobertaForMaskedLM", ""
    return "RobertaModel", "roberta."


RELEASE = Release(
    name="hf_roberta",
    title="Hugging Face RoBERTa",
    family="roberta",
    formats=("safetensors", "torch", "memory"),
    signature="roberta.embeddings.position_embeddings.weight",
    naming=NAMING,
    config_files=("config.json",),
    dialects=(DIALECT,),
    writes="huggingface",
    architecture=_architecture,
)
