"""GPT and GPT-2 as converted for bert4keras: CDial-GPT-tf, CPM_LM_bert4keras. BERT's names under `gpt/`.

Their configs say "gelu" for the tanh approximation that the models were trained with, and no epsilon, which is 1e-5.
No id is padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.naming import google_bert
from tfloader.naming.base import TF, Naming, renamed
from tfloader.naming.dialect import Dialect, same
from tfloader.naming.release import NOTHING_AROUND, TENSORFLOW, Release

KEYS = (*google_bert.SIZES, google_bert.ACTIVATION, google_bert.POSITIONS)
FIXED = {"layer_norm_eps": 1e-5, "application": "lm"}

BLOCK = "gpt/transformer/layer_{layer}"
RENAMED = {
    google_bert.BLOCK: BLOCK,
    "bert/embeddings/LayerNorm/": None,
    "bert/pooler/": None,
    "cls/": None,
    "bert/": "gpt/",
}
PRE_NORM = {
    f"{BLOCK}/attention/output/LayerNorm": f"{BLOCK}/attention/input/LayerNorm",
    f"{BLOCK}/output/LayerNorm": f"{BLOCK}/input/LayerNorm",
    "gpt/embeddings/token_type_embeddings": None,
}
NAMING = Naming(renamed(google_bert.NAMING.rows, RENAMED), ignorable=google_bert.NAMING.ignorable)
GPT2_NAMING = replace(
    NAMING,
    rows=(*renamed(NAMING.rows, PRE_NORM), *TF.norm("Output-Norm", "gpt/output/LayerNorm")),
)


def _no_table_of_its_own(fields: dict[str, Any], raw: Mapping[str, Any], tensors: Any) -> None:
    if fields.get("shared_segment_embeddings"):
        fields["type_vocab_size"] = 0


def _some_segments(config: TransformerConfig, raw: dict[str, Any]) -> None:
    """bert4keras takes 0 to mean that there are no segments at all."""
    if config.shared_segment_embeddings:
        raw["type_vocab_size"] = 2


DIALECT = Dialect(
    name="bert4keras GPT",
    keys=(*KEYS, google_bert.SEGMENTS, *same(shared_segment_embeddings=False)),
    fixed=FIXED,
    harmless=google_bert.GOOGLE_HARMLESS,
    finish_read=_no_table_of_its_own,
    finish_write=_some_segments,
)
GPT2_DIALECT = Dialect(name="bert4keras GPT-2", keys=KEYS, fixed=FIXED, harmless=google_bert.GOOGLE_HARMLESS)

RELEASE = Release(
    name="b4k_gpt",
    title="OpenAI GPT, CDial-GPT (converted for bert4keras)",
    family="gpt",
    **TENSORFLOW,
    signature="gpt/transformer/layer_0/attention/output/LayerNorm/gamma",
    naming=NAMING,
    config_files=("gpt_config.json", "*config*.json"),
    dialects=(DIALECT,),
    written_config="gpt_config.json",
    text_format=NOTHING_AROUND,
)

GPT2_RELEASE = replace(
    RELEASE,
    name="b4k_gpt2",
    title="GPT-2, CPM-LM (converted for bert4keras)",
    family="gpt2",
    signature="gpt/output/LayerNorm/gamma",
    naming=GPT2_NAMING,
    config_files=("*config*.json",),
    dialects=(GPT2_DIALECT,),
    written_config="config.json",
)
