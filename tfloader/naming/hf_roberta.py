"""RoBERTa in Hugging Face folders.

Positions count up from pad_token_id + 1, so the table has that many rows more than there are positions. The Chinese
RoBERTas are BERTs, published as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.errors import ConfigError
from tfloader.naming import hf_bert, huggingface
from tfloader.naming.dialect import revised, same
from tfloader.naming.heads import DENSE_ROWS, HeadKeys
from tfloader.naming.release import Release, TextFormat

NAMES = {
    "cls.predictions.transform.dense": "lm_head.dense",
    "cls.predictions.transform.LayerNorm": "lm_head.layer_norm",
    "cls.predictions.": "lm_head.",
    "cls.seq_relationship.": None,
}

TOKENS = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
KIN = hf_bert.naming_of("roberta.", NAMES, DENSE_ROWS)
NAMING = replace(KIN, duplicates=tuple(replace(copy, written=False) for copy in KIN.duplicates))


def _read_positions(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    rows, pad = fields["max_position_embeddings"], fields["pad_token_id"]
    if pad is None:
        raise ConfigError("pad_token_id is null, but RoBERTa's positions are counted from it.")
    if isinstance(rows, int) and isinstance(pad, int):  # or else the config is refused for it
        fields["max_position_embeddings"] = rows - pad - 1


def _write_positions(config: TransformerConfig, raw: dict[str, Any]) -> None:
    raw["max_position_embeddings"] += (config.pad_token_id or 0) + 1


DIALECT = replace(
    hf_bert.DIALECT,
    name="Hugging Face RoBERTa",
    # What RoBERTa's own code takes for granted where a file is silent; its head always has the exact gelu.
    keys=revised(hf_bert.DIALECT.keys, huggingface.EXACT_GELU, *same(pad_token_id=1, eos_token_id=2)),
    constants={"model_type": "roberta"},
    heads=HeadKeys("Roberta"),
    finish_read=_read_positions,
    finish_write=_write_positions,
)

RELEASE = Release(
    name="hf_roberta",
    title="Hugging Face RoBERTa",
    family="roberta",
    signature="roberta.embeddings.position_embeddings.weight",
    naming=NAMING,
    dialects=(DIALECT,),
    text_format=TextFormat(tokens=TOKENS, also=("RobertaTokenizer",)),
    architectures={"mlm": "RobertaForMaskedLM", None: "RobertaModel"},
    body="roberta.",
    **huggingface.FOLDER,
)
