"""OpenAI GPT and CDial-GPT, and what was converted for bert4keras, GPT-2s (CPM-LM) among them.

Converted for bert4keras (CDial-GPT-tf, CPM_LM_bert4keras): BERT's names under `gpt/`. In Hugging Face folders: GPT-2's
names, and a config of its own. In both "gelu" means the tanh approximation that the models were trained with. The
former's configs say no epsilon, which is 1e-5, and no id is padding; the latter's feed-forward is always four times as
wide as the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tfloader.config import TransformerConfig
from tfloader.naming import google_bert, gpt2, huggingface
from tfloader.naming.base import TF, Duplicate, Naming, renamed
from tfloader.naming.constants import causal_masks, positions
from tfloader.naming.dialect import Dialect, Key, revised, same
from tfloader.naming.heads import HeadKeys
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
GPT2_NAMING = replace(NAMING, rows=(*renamed(NAMING.rows, PRE_NORM), *TF.norm("Output-Norm", "gpt/output/LayerNorm")))


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
)

HF_RENAMED = {
    "transformer.wte.": "transformer.tokens_embed.",
    "transformer.wpe.": "transformer.positions_embed.",
    "transformer.ln_f.": None,
    "classifier.": None,
    "qa_outputs.": None,
}
HF_ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu", "silu": "silu", "swish": "silu"}

HF_NAMING = Naming(
    rows=renamed(gpt2.HF_NAMING.rows, HF_RENAMED),
    old_names=huggingface.old_names("transformer.", "tokens_embed|positions_embed|h"),
    buffers=(causal_masks(r"\.attn\.bias$"), positions(r"(^|\.)position_ids$")),
    duplicates=(Duplicate("lm_head.weight", "transformer.tokens_embed.weight"),),
)


def _hf_finish_write(config: TransformerConfig, raw: dict[str, Any]) -> None:
    gpt2.check_four_times(config, "Hugging Face openai-gpt", "tensorflow")
    gpt2.finish_write(config, raw)


HF_DIALECT = Dialect(
    name="Hugging Face openai-gpt",
    keys=revised(
        gpt2.HF_DIALECT.keys,
        Key("hidden_act", "afn", "gelu_tanh", values=HF_ACTIVATIONS),
        without=("intermediate_size",),
    ),
    fixed={"application": "lm", "intermediate_size": None},
    only={**huggingface.ONLY, "n_special": (0,), "tie_word_embeddings": (True,)},
    harmless=(*huggingface.HARMLESS, "n_ctx|pad_token_id|predict_special_tokens|is_decoder"),
    constants={"model_type": "openai-gpt"},
    heads=HeadKeys("OpenAIGPT", padding=True),
    notes={"shared_segment_embeddings": False},  # to transformers, token_type_ids are always such segments
    finish_read=gpt2.four_times_as_wide,
    finish_write=_hf_finish_write,
)

HF_RELEASE = Release(
    name="hf_openai_gpt",
    title="Hugging Face OpenAI GPT",
    family="gpt",
    signature="transformer.positions_embed.weight",
    naming=HF_NAMING,
    dialects=(HF_DIALECT,),
    text_format=gpt2.HF_RELEASE.text_format,
    architectures={None: "OpenAIGPTLMHeadModel"},
    **huggingface.FOLDER,
)
